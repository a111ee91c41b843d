"""Every exemption is told to users."""

from pathlib import Path

from tests.conformance.exemptions import EXEMPTIONS

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_every_exemption_is_in_the_architecture_with_its_reason() -> None:
    text = " ".join(ARCHITECTURE.read_text().split())

    assert [reason for reason in EXEMPTIONS.values() if reason not in text] == []
