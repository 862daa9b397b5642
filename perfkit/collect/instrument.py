"""`perfkit record --instrument`: starts a program with OpenTelemetry in it, without changing it.

The program's own environment must have OpenTelemetry: mixing in ours would break it as soon as
versions differ. What is missing is said, with the command that mends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import perfkit
from perfkit.collect import probe
from perfkit.errors import RecordError
from perfkit.manifest import CaptureInfo

_SITE = Path(__file__).with_name("zero_code")
_FOLDER = Path(perfkit.__file__).parent
_PROBE_TIMEOUT_S = 60
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*t?$")
_DJANGO_SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE["']\s*,\s*["']([\w.]+)["']""")
_APPLICATION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(?:\(.*\))?")
_MIN_PYTHON = (3, 10)

# Metrics often enough to see a pool fill up; spans soon enough to lose few with a killed program.
_DEFAULTS = {
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_BSP_SCHEDULE_DELAY": "500",
    "OTEL_BSP_MAX_QUEUE_SIZE": "16384",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512",
}
# perfkit reads these metrics itself, from outside.
_DISABLED = ("system_metrics",)
_DISABLED_VARIABLE = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


@dataclass(frozen=True)
class Findings:
    """What the probe said of a program's Python."""

    executable: str
    missing: list[str]
    silent: list[str]
    """Instrumentations that are not there for libraries that are."""
    refused: list[str]
    """Libraries whose version their instrumentation does not take, and which it takes."""
    version: tuple[int, int]
    pip: bool
    django: bool

    def mend(self, distributions: Sequence[str]) -> str:
        """Return the command that installs distributions beside the program."""
        where = shlex.quote(self.executable)
        installer = f"{where} -m pip install" if self.pip else f"uv pip install --python {where}"
        return f"{installer} {' '.join(distributions)}"


def interpreter(command: Sequence[str]) -> str | None:
    """Return the Python that a command runs in; None when that cannot be seen from outside."""
    path = shutil.which(command[0])
    if path is None:
        return None
    if _PYTHON.match(os.path.basename(path)):
        return path
    try:
        with open(path, "rb") as file:
            head = file.read(1024).decode("utf-8", "replace").split("\n")
    except OSError:
        return None
    if not head[0].startswith("#!"):
        return None
    words = head[0][2:].split()
    if words[:1] == ["/bin/sh"] and len(head) > 1 and head[1].startswith("'''exec'"):
        # As pip writes it where the path is too long for the kernel.
        words = shlex.split(head[1].removeprefix("'''exec'"))
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if words and _PYTHON.match(os.path.basename(words[0])):
        return shutil.which(words[0])
    return None


def inspect(command: Sequence[str], env: Mapping[str, str]) -> Findings | None:
    """Ask the program's Python what it has; None when it cannot be known beforehand.

    Raises RecordError when OpenTelemetry is missing there.
    """
    python = interpreter(command)
    if python is None:
        return None
    try:
        done = subprocess.run(
            [python, probe.__file__],
            env=dict(env),
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
        said = json.loads(done.stdout)
        said["version"] = tuple(said["version"])
        found = Findings(**said)
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, KeyError) as error:
        raise RecordError(
            f"--instrument: {python} could not be asked what it has installed: {error}",
            hint="check that it runs; or leave --instrument away",
        ) from None
    if found.version < _MIN_PYTHON:
        version = ".".join(map(str, found.version))
        raise RecordError(
            f"--instrument needs Python 3.10 or later; {python} is {version}",
            hint="leave --instrument away: stacks and metrics are recorded all the same",
        )
    if found.missing:
        raise RecordError(
            f"--instrument: {found.executable} has no {', '.join(found.missing)}",
            hint="install it there: " + found.mend([*found.missing, *found.silent]),
        )
    return found


def service_name(command: Sequence[str]) -> str:
    """Return a name for the service: of the module or the script that is run."""
    words = [os.path.basename(command[0]), *command[1:]]
    if _PYTHON.match(words[0]):
        words = words[1:]
        while words and words[0].startswith("-") and words[0] not in ("-m", "-c"):
            words = words[1:]
        if words[:1] == ["-m"]:
            words = words[1:]
        elif words[:1] == ["-c"]:
            return "python"
    # uvicorn, gunicorn and the like: the application says more than the server.
    applications = [word for word in words[1:] if _APPLICATION.fullmatch(word)]
    name = applications[0].partition(":")[0] if applications else words[0] if words else "python"
    return os.path.basename(name).removesuffix(".py") or "python"


def django_settings(command: Sequence[str]) -> tuple[str, Path] | None:
    """Return the settings module that `manage.py` names, and its folder; None without one."""
    given = [Path(word) for word in command if os.path.basename(word) == "manage.py"]
    for path in [*given, Path("manage.py")]:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if found := _DJANGO_SETTINGS.search(path.read_text(encoding="utf-8")):
                return found[1], path.resolve().parent
    return None


class Instrumentation:
    """The environment of an instrumented program, and what its processes report."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Look at the program's Python. Raises RecordError when OpenTelemetry is missing there."""
        self._command = command
        self._given = {**os.environ, **env}
        self._found = inspect(command, self._given)
        descriptor, name = tempfile.mkstemp(prefix="perfkit-instrument-", suffix=".jsonl")
        os.close(descriptor)
        self._report = Path(name)

    def environment(self, endpoint: str, headers: str = "") -> dict[str, str]:
        """Return the variables to set; `endpoint` is the receiver's URL, which needs `headers`."""
        given = self._given
        env = {name: given.get(name) or value for name, value in _DEFAULTS.items()}
        path = [str(_SITE)]
        disabled = [name for name in given.get(_DISABLED_VARIABLE, "").split(",") if name]
        disabled += _DISABLED
        if not given.get("DJANGO_SETTINGS_MODULE"):
            if settings := django_settings(self._command):
                env["DJANGO_SETTINGS_MODULE"] = settings[0]
                path.append(str(settings[1]))
            else:
                # Without its settings Django's instrumentation would put empty ones in place.
                disabled.append("django")
        else:
            path.append(os.getcwd())
        path += [part for part in given.get("PYTHONPATH", "").split(os.pathsep) if part]
        if "service.name=" not in given.get("OTEL_RESOURCE_ATTRIBUTES", ""):
            env["OTEL_SERVICE_NAME"] = given.get("OTEL_SERVICE_NAME") or service_name(self._command)
        for signal in ("TRACES", "METRICS"):
            env[f"OTEL_{signal}_EXPORTER"] = "otlp"
            env[f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"] = f"{endpoint}/v1/{signal.lower()}"
            env[f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"] = "http/protobuf"
            # A connection that is kept would be shared with workers that are forked later.
            env[f"OTEL_EXPORTER_OTLP_{signal}_HEADERS"] = ",".join(
                filter(None, ("connection=close", headers))
            )
        return env | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_LOGS_EXPORTER": "none",
            # Nobody reads exemplars; and a thread waits for ever for their lock, which it holds,
            # when the garbage collector returns a leaked connection while a pool is counted.
            "OTEL_METRICS_EXEMPLAR_FILTER": "always_off",
            "OTEL_SDK_DISABLED": "false",
            _DISABLED_VARIABLE: ",".join(dict.fromkeys(disabled)),
            "PERFKIT_INSTRUMENT_FOLDER": str(_FOLDER),
            "PERFKIT_INSTRUMENT_REPORT": str(self._report),
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
        }

    def reports(self) -> list[dict[str, Any]]:
        """Return what the program's processes reported until now."""
        found = []
        with contextlib.suppress(OSError):
            for line in self._report.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def close(self) -> None:
        """Remove the file of reports."""
        self._report.unlink(missing_ok=True)

    @property
    def hint(self) -> str | None:
        """What is to be said before the program runs: libraries that will give no spans."""
        found = self._found
        if found is None:
            return None
        said = []
        if found.silent:
            names, mend = ", ".join(found.silent), found.mend(found.silent)
            said.append(f"no spans from libraries without {names}; to add them: {mend}")
        if found.refused:
            said.append(f"no spans from {', '.join(found.refused)}")
        return "; ".join(said) or None

    def describe(self, info: CaptureInfo) -> None:
        """Write into the capture what was instrumented and what was not."""
        reports = self.reports()
        good = [report for report in reports if "sdk" in report]
        info.sources.append(
            {
                "name": "opentelemetry-instrument",
                "processes": len(good),
                "sdk": sorted({str(report["sdk"]) for report in good}),
            }
        )
        if self.hint:
            info.note(f"Instrumentation: {self.hint}")
        for report in reports:
            where = f"pid {report.get('pid')} ({report.get('executable')})"
            if "missing" in report:
                fix = f"{shlex.quote(str(report.get('executable')))} -m pip install "
                needed = " ".join(dict.fromkeys(probe.NEEDED.values()))
                info.note(f"Not instrumented: {where}: {report['missing']}; to mend: {fix}{needed}")
            elif "failed" in report:
                info.note(f"Not instrumented: {where}: {report['failed']}")
        begun = {report["pid"] for report in reports if "begun" in report}
        ended = {report["pid"] for report in reports if "begun" not in report}
        if begun - ended:
            info.note(f"Not instrumented: {len(begun - ended)} processes had no time to start.")
        if not reports:
            info.note(
                "Not instrumented: no Python under the command read PYTHONPATH (python -I and -E "
                "do not, nor do frozen programs)."
            )
