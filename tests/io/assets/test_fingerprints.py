"""What the package computes, told by its code."""

from __future__ import annotations

from neuface.io.assets.fingerprints import code_sha256, package_sha256

SOURCE = '''"""A module."""

class Thing:
    """Of some kind."""

    size: int = 3
    """In pixels."""

    def area(self):
        """Of the thing."""
        return self.size * self.size  # squared
'''


def test_code_is_the_same_whatever_is_said_of_it() -> None:
    bare = "class Thing:\n  size: int = 3\n  def area(self):\n    return (self.size*self.size)\n"
    assert code_sha256(SOURCE) == code_sha256(bare)
    assert code_sha256(SOURCE.replace("A module", "Another")) == code_sha256(SOURCE)


def test_code_that_does_something_else_is_another() -> None:
    assert code_sha256(SOURCE.replace("= 3", "= 4")) != code_sha256(SOURCE)
    assert code_sha256(SOURCE.replace("* self", "+ self")) != code_sha256(SOURCE)
    # A string that is used is no text about the code.
    assert code_sha256("name = 'a'") != code_sha256("name = 'b'")


def test_the_package_is_told_by_what_counts_of_it() -> None:
    whole = package_sha256()
    assert whole == package_sha256()
    assert package_sha256(["viz/*.py"]) != whole
    assert package_sha256(["no_such_folder/*.py"]) == whole
