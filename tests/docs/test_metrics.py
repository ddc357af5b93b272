# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The page of the metrics and the alert rules name the metrics that there are.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from twisted_heartbeat import CheckInLimits, DatagramLimits, Limits, ServerLimits
from twisted_heartbeat.checkin.resource import REFUSALS
from twisted_heartbeat.core import causes
from twisted_heartbeat.datagram.ignored import _WORDS

from ..status.test_metrics import fullOfAll
from ..support.pages import mistakesIn

DOCS = Path(__file__).parents[2] / "docs"
RULES = DOCS / "examples" / "prometheus" / "heartbeat.rules.yml"
ALERTS = DOCS / "howto" / "alert-with-prometheus.md"
PAGE = DOCS / "reference" / "metrics.md"

NAME = re.compile(r"twisted_heartbeat_\w+")


def exposed() -> dict[str, tuple[str, set[str]]]:
    """
    The kind and the labels of each metric, by the name under which it is asked for.
    """
    found = {}
    for family in text_string_to_metric_families(fullOfAll().render().decode()):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = family.type, labels
    return found


def test_theTableIsTrue() -> None:
    """
    The table has each metric with its kind and its labels, and no other.
    """
    rows = re.findall(r"^\| `(twisted_\w+)` \| (\w+) \| ([^|]*)\|", PAGE.read_text(), re.M)
    told = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert told == exposed()


def test_pageHasAllVerdicts() -> None:
    """
    The page names the causes that are counted as verdicts.
    """
    found = re.search(r"A \*verdict\* is [^:]*:([^.]*)\.", PAGE.read_text(encoding="utf-8"))
    assert found is not None
    public = vars(causes).values()
    verdicts = {it.__name__ for it in public if getattr(it, "isVerdict", False)}
    named = re.findall(r"`(\w+)`", found[1])
    assert mistakesIn("metrics.md, A *verdict* is,", named, verdicts) == []


def test_limitsAreSettings() -> None:
    """
    What the page gives as examples of a limit are fields of the settings.
    """
    settings = (Limits, ServerLimits, DatagramLimits, CheckInLimits)
    [row] = re.findall(r"^\| `limit` .*", PAGE.read_text(), re.M)
    named = set(re.findall(r"`(\w+)`", row)) - {"limit", *(each.__name__ for each in settings)}
    assert named
    assert named <= {field for each in settings for field in each.__dataclass_fields__}


def test_eachReasonIsTold() -> None:
    """
    The page tells each reason for which a datagram or a request is ignored or refused, and no
    other.
    """
    page = PAGE.read_text()
    for heading, reasons in (
        ("### Datagrams", {*_WORDS, "late", "challenged", "foreign"}),
        ("### Check-ins", set(REFUSALS)),
    ):
        section = page.split(f"{heading}\n")[1].split("\n#")[0]
        assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) - {"reason"} == reasons


def test_rulesNameWhatThereIs() -> None:
    """
    Each metric in an alert rule exists, and so do the labels by which it is summed and told.
    """
    metrics = exposed()
    text = RULES.read_text()
    assert len(set(NAME.findall(text))) >= 5
    for rule in text.split("- alert: ")[1:]:
        labels = {"instance", "job", "le"}
        for name in NAME.findall(rule):
            kind, own = metrics[name.removesuffix("_bucket")]
            assert name.endswith("_bucket") == (kind == "histogram")
            labels |= own
        used = set(re.findall(r"\$labels\.(\w+)", rule))
        for group in re.findall(r"by \(([^)]*)\)", rule):
            used |= set(group.split(", "))
        assert used <= labels


def test_eachAlertIsExplained() -> None:
    """
    The page says what to do for each alert.
    """
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert re.findall(r"^\| `(Heartbeat\w+)`", ALERTS.read_text(), re.M) == alerts


def test_promtoolAcceptsTheRules() -> None:
    """
    Prometheus itself can read the rules.
    """
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


SERIES = {
    "HeartbeatPeersDown": {'peers{state="down"}': "0x20 1x40", 'peers{state="up"}': "9x60"},
    "HeartbeatFleetDown": {'peers{state="down"}': "0x20 3x40", 'peers{state="up"}': "7x60"},
    "HeartbeatFlapping": {'suspicions_total{carrier="tcp"}': "_x20 0+10x40"},
    "HeartbeatReactorLate": {
        'timer_lateness_seconds_bucket{le="0.1"}': "0x60",
        'timer_lateness_seconds_bucket{le="0.25"}': "0x20 0+9x40",
        'timer_lateness_seconds_bucket{le="+Inf"}': "0x20 0+9x40",
    },
    "HeartbeatLimitHit": {'limits_hit_total{limit="peers"}': "_x20 50x40"},
    "HeartbeatWrongKey": {'datagrams_ignored_total{reason="forged"}': "_x20 0+5x40"},
    "HeartbeatGaveUp": {'given_up_total{cause="PermanentFailure"}': "_x20 1x40"},
    "HeartbeatWatcherGone": {'up{job="heartbeat"}': "1x20 0x40"},
}
"""
For each alert what a scrape in each minute finds: nothing unusual for 20 minutes, then the fault.
A counter with a label appears with its first count.
"""


@pytest.mark.parametrize("alert", SERIES)
def test_alertIsRaised(alert: str, tmp_path: Path) -> None:
    """
    Each alert is raised by the first fault of its kind, and not before.
    """
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    series = []
    for name, values in SERIES[alert].items():
        prefix = "" if name.startswith("up") else "twisted_heartbeat_"
        labelled = name.replace("{", '{instance="hub", ')
        series.append({"series": f"{prefix}{labelled}", "values": values})
    firing = f'alertname="{alert}", alertstate="firing"'
    samples = [
        {
            "expr": f"count(count_over_time(ALERTS{{{firing}}}[25m]))",
            "eval_time": when,
            "exp_samples": [{"value": number, "labels": "{}"}] if number else [],
        }
        for when, number in (("19m", 0), ("45m", 1))
    ]
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": samples}]
    file = tmp_path / "test.yml"
    # JSON is YAML.
    file.write_text(json.dumps({"rule_files": [str(RULES)], "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


def test_eachAlertIsTried() -> None:
    """
    The test above has all alerts.
    """
    assert re.findall(r"- alert: (\w+)", RULES.read_text()) == [*SERIES]
