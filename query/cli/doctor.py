"""`clipsieve doctor`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from query.settings import DoctorSettings

SUMMARY = "show versions, hardware, and what will run where"
EXAMPLES = "  clipsieve doctor\n  clipsieve doctor --json --model local-dir:/models/clip"
SETTINGS = "query.settings:DoctorSettings"


def run(settings: "DoctorSettings") -> None:
    """Examine the machine and show the findings."""
    from query.cli.console import print_sections, show
    from query.doctor import examine

    sections = examine(settings)
    show(settings, sections, lambda: print_sections(sections))
