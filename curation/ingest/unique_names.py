"""Names that come more than once are told apart, and none is lost."""


class UniqueNames:
    """Gives every member of something a name of its own: the second `a.jpg` becomes `a.jpg#2`."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}  # every name in use -> the number that its next double tries first
        self.num_repeated = 0

    def take(self, name: str) -> str:
        """`name`, or the first `name#N` that nobody has."""
        unique, number = name, self._next.get(name, 1)
        while unique in self._next:
            number += 1
            unique = f"{name}#{number}"
        if unique != name:
            self.num_repeated += 1
            self._next[name] = number
        self._next[unique] = 1
        return unique
