# SPDX-License-Identifier: Apache-2.0
"""`testbed host`, `testbed promote`, `testbed status`, `testbed rollback`, `testbed history`."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.case import canonical_json
from testbed.cli.parser import Options, Parser, add_json, verb
from testbed.cli.run import cancel_on_signal, listen
from testbed.errors import ExitCode, TestbedError
from testbed.report import harmless
from testbed.report.document import error_document

if TYPE_CHECKING:
    from testbed.cli.parser import Verbs
    from testbed.hosts.promotion import HostResult
    from testbed.hosts.reach import Keys
    from testbed.hosts.resident import Document, Resident

HOST_EXAMPLES = """\
  testbed host install root@web1 --trust attest.pub --policy default --promoter deploy
  testbed host install local --trust attest.pub --policy lab      this machine, as root or by `sudo -n`
  testbed host kernel deploy@web1 --out web1-kernel               its kernel, for `testbed run --kernel web1-kernel`
  testbed host rules deploy                                       the sudo rules that a promoter needs
  testbed host remove root@web1                                   log and evidence stay; --everything
"""
PROMOTE_EXAMPLES = """\
  testbed promote CASE --host deploy@web1             an attested case to one host, watched until it is kept
  testbed promote CASE --host local                   to this machine
  testbed promote my.attestation --case CASE --host inventory.yaml
                                                      host after host, to the first rollback; repeated: from there
"""
STATUS_EXAMPLES = """\
  testbed status --host deploy@web1                   what the kernel says; exit code 1 if our record differs
  testbed status --host inventory.yaml --json
"""
ROLLBACK_EXAMPLES = """\
  testbed rollback --host deploy@web1                 take back what runs, confirmed by the kernel
"""
HISTORY_EXAMPLES = """\
  testbed history --host deploy@web1                  what was done there; exit code 1 if the log was altered
"""


def add(verbs: Verbs) -> None:
    """Add the verbs."""
    parser = verb(
        verbs, "host", "prepare a host for promotions, or clear it; its administrator's act", None, HOST_EXAMPLES
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    install_ = verb(actions, "install", "install the host's program, its trusted keys and its policy", install)
    install_.add_argument("host", metavar="HOST", help="`local`, or `[user@]server[:port]`; root, or `sudo -n` there")
    install_.add_argument(
        "--trust",
        type=Path,
        action="append",
        default=[],
        metavar="KEY.pub",
        help="whose attestations count; may be repeated",
    )
    install_.add_argument("--policy", required=True, metavar="NAME|FILE", help="promotion policy that the host obeys")
    install_.add_argument("--promoter", metavar="USER", help="user of the host who may promote, by sudo rules")
    install_.add_argument("--health", type=Path, metavar="FILE", help="command of yours: exit code 0 is healthy")
    install_.add_argument("-v", "--verbose", action="store_true", help="show the stages")
    _add_keys(install_)
    add_json(install_)
    remove_ = verb(actions, "remove", "take back what runs, and remove what was installed", remove)
    remove_.add_argument("host", metavar="HOST")
    remove_.add_argument("--everything", action="store_true", help="log and evidence too")
    _add_keys(remove_)
    add_json(remove_)
    kernel_ = verb(actions, "kernel", "fetch a host's kernel, to judge schedulers on it", kernel)
    kernel_.add_argument("host", metavar="HOST")
    kernel_.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new directory; `run --kernel DIR`")
    _add_keys(kernel_)
    add_json(kernel_)
    rules_ = verb(actions, "rules", "print the sudo rules that a promoter needs", rules)
    rules_.add_argument("user", metavar="USER")

    parser = verb(verbs, "promote", "bring an attested scheduler to hosts, as a canary", promote, PROMOTE_EXAMPLES)
    parser.add_argument("attestation", type=Path, metavar="CASE|ATTESTATION")
    parser.add_argument(
        "--case", type=Path, metavar="CASE", help="where the candidate's files are (default: around it)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show each event of the watchers")
    _add_hosts(parser)

    for name, summary, call, examples in (
        ("status", "what runs on hosts, by their kernels' word", status, STATUS_EXAMPLES),
        ("rollback", "take back what runs on hosts", rollback, ROLLBACK_EXAMPLES),
        ("history", "what was done on hosts, from their logs", history, HISTORY_EXAMPLES),
    ):
        _add_hosts(verb(verbs, name, summary, call, examples))


def _add_hosts(parser: Parser) -> None:
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="HOST",
        help="`local`, `[user@]server[:port]`, or one inventory.yaml; may be repeated",
    )
    _add_keys(parser)
    add_json(parser)


def _add_keys(parser: Parser) -> None:
    parser.add_argument("--known-hosts", type=Path, metavar="FILE", help="keys of hosts (default: as ssh has them)")
    parser.add_argument(
        "--identity", type=Path, metavar="FILE", help="private key (default: as ssh has them, and the agent)"
    )


def _keys(options: Options) -> Keys:
    from testbed.hosts.reach import Keys

    return Keys(options.known_hosts, options.identity)


def install(options: Options) -> int:
    """Install on a host."""
    from testbed.hosts import install as installs
    from testbed.hosts import program, reach
    from testbed.hosts.resident import section
    from testbed.promote import policy

    reach.check(options.host)
    demanded = policy.load(options.policy)
    if options.promoter is not None:
        installs.sudo_rules(options.promoter)
    with ExitStack() as stack:
        built = program.build(listen((), options.verbose, stack))
        host = stack.enter_context(contextlib.closing(reach.reach(options.host, _keys(options))))
        wanted = installs.Wanted(built, demanded, options.trust, options.promoter, options.health)
        resident = installs.install(host, wanted)
    size = built.program.stat().st_size
    if options.json:
        _print_json({"schema": "testbed.installed/1", "host": options.host, "facts": resident.facts, "bytes": size})
        return int(ExitCode.PASS)
    print(f"installed  {options.host}: {section(resident.facts, 'kernel').get('release')}, policy {demanded.name}")
    print(f"program    sha256 {built.sha256[:16]}, {size} bytes, and {program.UNIT}")
    print(f"trusted    {len(options.trust)} keys")
    if options.promoter is None:
        print("promoters  root alone; for others, with USER in the place of a name, in /etc/sudoers.d:")
    else:
        print("promoters  root, and by /etc/sudoers.d/testbed:")
    print("".join(f"  {line}\n" for line in installs.sudo_rules(options.promoter or "user").splitlines()), end="")
    return int(ExitCode.PASS)


def remove(options: Options) -> int:
    """Remove from a host."""
    from testbed.hosts import install as installs
    from testbed.hosts import reach

    with contextlib.closing(reach.reach(options.host, _keys(options))) as host:
        installs.remove(host, everything=options.everything)
    if options.json:
        _print_json({"schema": "testbed.removed/1", "host": options.host, "everything": options.everything})
        return int(ExitCode.PASS)
    print(f"removed    {options.host}{'' if options.everything else f' (log and evidence stay in {installs.STATE})'}")
    return int(ExitCode.PASS)


def kernel(options: Options) -> int:
    """Fetch a host's kernel."""
    from testbed.hosts import kernel as kernels
    from testbed.hosts import reach
    from testbed.image.recipe import Sources

    recipe = Sources.load().recipe.kernel
    with contextlib.closing(reach.reach(options.host, _keys(options))) as host:
        found = kernels.fetch(host, (*recipe.modules, *recipe.optional_modules), options.out)
    if options.json:
        document = {"schema": "testbed.fetched-kernel/1", "host": options.host, "release": found.release}
        _print_json({**document, "directory": str(options.out), "files": list(found.files), "bytes": found.size})
        return int(ExitCode.PASS)
    print(f"fetched    linux {found.release} of {options.host}: {len(found.files)} files, {found.size >> 20} MiB")
    print(f"next       testbed run CANDIDATE --kernel {options.out}")
    return int(ExitCode.PASS)


def rules(options: Options) -> int:
    """Print sudo rules."""
    from testbed.hosts.install import sudo_rules

    print(sudo_rules(options.user), end="")
    return int(ExitCode.PASS)


def promote(options: Options) -> int:
    """Promote to hosts."""
    from testbed.hosts import promotion, reach
    from testbed.hosts.inventory import rollout
    from testbed.promote import bundle

    hosts = rollout(options.host)
    sent = bundle.read(options.attestation, options.case)
    hosts.begin(sent.id)
    keys = _keys(options)
    cancelled = threading.Event()
    cancel_on_signal(cancelled)
    with ExitStack() as stack:
        result = promotion.promote_all(
            sent,
            hosts.hosts,
            lambda host: reach.reach(host, keys),
            listen((), options.verbose, stack),
            cancelled,
            share=hosts.share,
            before=hosts.note,
            known=hosts.known,
        )
    if options.json:
        _print_json(result.model_dump(mode="json", by_alias=True))
    else:
        for one in result.hosts:
            _print_result(one)
    return int(result.exit_code)


def _print_result(result: HostResult) -> None:
    print(f"{result.outcome:11} {result.host}{': ' if result.message else ''}{harmless(result.message)}")
    for one in result.refusals:
        print(f"            {harmless(one.code)}: {harmless(one.message)}")
    if hint := result.hint:
        print(f"            hint: {harmless(hint)}")


def status(options: Options) -> int:
    """The truth of hosts."""
    return _ask(
        options, "status", lambda resident: resident.status(), _status_lines, lambda told: bool(told.get("healthy"))
    )


def rollback(options: Options) -> int:
    """Take back on hosts."""
    return _ask(options, "rollback", lambda resident: resident.stop(), _stop_lines, lambda told: bool(told.get("back")))


def history(options: Options) -> int:
    """Logs of hosts."""
    return _ask(
        options, "history", lambda resident: resident.history(), _log_lines, lambda told: bool(told.get("sound"))
    )


def _ask(
    options: Options,
    what: str,
    question: Callable[[Resident], Document],
    lines: Callable[[Document], Sequence[str]],
    fine: Callable[[Document], bool],
) -> int:
    """Put a question to each host; the exit code is that of the first that is not fine."""
    from testbed.hosts import reach
    from testbed.hosts.inventory import rollout
    from testbed.hosts.resident import Resident

    answers: list[dict[str, Any]] = []
    code = ExitCode.PASS
    keys = _keys(options)
    for name in rollout(options.host).hosts:
        try:
            with contextlib.closing(reach.reach(name, keys)) as host:
                told = question(Resident(host))
        except TestbedError as error:
            answers.append({"host": name, **error_document(error)})
            code = code or error.exit_code
            if not options.json:
                print(f"{name}: error: {harmless(error.message)}", file=sys.stderr)
                if error.hint:
                    print(f"hint: {harmless(error.hint)}", file=sys.stderr)
            continue
        answers.append({"host": name, what: told})
        code = code or (ExitCode.PASS if fine(told) else ExitCode.REJECT)
        if not options.json:
            for line in lines(told):
                print(f"{name}: {harmless(line)}")
    if options.json:
        _print_json({"schema": f"testbed.{what}/1", "hosts": answers})
    return int(code)


def _status_lines(told: Document) -> list[str]:
    from testbed.hosts.resident import rows, section

    kernel, record = section(told, "kernel"), section(told, "record")
    ops = f", {kernel.get('ops')}" if kernel.get("ops") else ""
    found = [f"sched_ext {kernel.get('state')}{ops}, held by {told.get('holder')}"]
    if record:
        stage = f" in {record.get('stage')}" if record.get("stage") else ""
        found.append(
            f"{record.get('phase')}{stage}: bundle {str(record.get('id'))[:16]}, case {record.get('case')}, "
            f"for {told.get('age_s')} s, by {record.get('by')}"
        )
        if record.get("limit"):
            found.append(f"taken back for `{record.get('limit')}`: {record.get('message')}")
    return [*found, *(f"discrepancy: {one}" for one in rows(told, "discrepancies"))]


def _stop_lines(told: Document) -> list[str]:
    from testbed.hosts.resident import number

    if not told.get("back"):
        return ["NOT confirmed: the kernel does not say `disabled`"]
    return [f"taken back in {number(told, 'back_us') / 1000:.1f} ms ({told.get('how')}), EEVDF confirmed"]


def _log_lines(told: Document) -> list[str]:
    from testbed.hosts.resident import rows

    known = ("seq", "time", "boot", "prev", "what", "by")
    found = []
    for one in (line for line in rows(told, "lines") if isinstance(line, dict)):
        rest = ", ".join(f"{key} {value}" for key, value in one.items() if key not in known and value not in ("", None))
        found.append(f"{one.get('seq')}  {one.get('time')}  {one.get('what')}  by {one.get('by')}  {rest}".rstrip())
    if told.get("broken"):
        found.append(f"BROKEN: line {told.get('broken')} does not follow from the one before; the rest proves nothing")
    if told.get("torn"):
        found.append(f"{told.get('torn')} lines were torn by a power cut or a full disk")
    return found


def _print_json(document: object) -> None:
    sys.stdout.write(canonical_json(document).decode("ascii"))
