"""`ipsecgw doctor` on the machine that runs the tests, with the certificates of a configuration."""

import json
from pathlib import Path

import pytest

from gateway.cli.main import main
from tests.fakes.pki import issue

CA = issue("CA")
GATEWAY = issue("gw", CA, names=["gw.example"])

CONFIG = """\
connections:
- name: net
  local: {id: gw.example, auth: {certificate: {certs: [{file: gw.pem}], key: {file: gw.key}}}}
  remote: {address: 192.0.2.2, auth: {certificate: {cas: [{file: ca.pem}]}}}
  children: [{name: lan}]
"""


def test_certificates_that_are_not_valid_now_are_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"gw.pem": GATEWAY.pem, "gw.key": GATEWAY.key_pem, "ca.pem": CA.pem, "net.yaml": CONFIG.encode()}
    for name, contents in files.items():
        (tmp_path / name).write_bytes(contents)
        (tmp_path / name).chmod(0o600)

    # They are of 2030.
    assert main(["doctor", "--config", str(tmp_path / "net.yaml"), "--json"]) == 1

    findings = json.loads(capsys.readouterr().out)["findings"]
    told = [finding for finding in findings if finding["check"] == "certificates"]
    assert {finding["severity"] for finding in told} == {"problem"}
    assert [finding["evidence"].split(": ")[0] for finding in told] == [
        "net.local.auth.certificate.certs[0]",
        "net.remote.auth.certificate.cas",
    ]


def test_the_report_has_the_same_findings(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    main(["doctor"])
    report = capsys.readouterr().out

    assert findings
    for finding in findings:
        assert f"{finding['check']}: {finding['text']}\n" in report
