"""One line of `byol kubeflow check`."""

import dataclasses

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What came of one question.

    Attributes:
        what: that was asked about.
        state: "ok", "failed", or "unknown" where nobody could be asked.
        said: what was found.
        mend: what to do about it; "" where there is nothing to do.
    """

    what: str
    state: str
    said: str
    mend: str = ""

    def line(self) -> str:
        """As it is printed."""
        return f"{self.state:<8}{self.what}: {self.said}.{f' Mend: {self.mend}.' if self.mend else ''}"


def merged(outside: list[Finding], run: list[Finding]) -> list[Finding]:
    """What a run found in place of what was found from outside; why it failed is told from both."""
    found = {one.what: one for one in outside}
    for one in run:
        before = found.get(one.what)
        both = before is not None and before.state == one.state == FAILED
        found[one.what] = (
            dataclasses.replace(one, said=f"{one.said}; {before.said}") if before and both else one
        )
    return list(found.values())
