"""SQL text read word by word: for the statements and clauses that DataFusion does not hand out.

The words come from sqlglot's tokenizer, which knows quotes and comments; what they mean is decided
by DataFusion, which gets every expression as the text that it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from deltawitness.exceptions import StatementError

if TYPE_CHECKING:
    from sqlglot.tokens import Token, Tokenizer  # type: ignore[attr-defined]  # re-exported

__all__ = [
    "GENERIC",
    "WITH_BRACKETS",
    "Spelling",
    "Words",
    "first_word",
    "folded",
    "quote_identifier",
]

_FIRST_WORD = re.compile(r"(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?\*/)*([A-Za-z]+|\()", re.DOTALL)

_OPENING = frozenset({"(", "[", "{"})
_CLOSING = frozenset({")", "]", "}"})


def first_word(text: str) -> str:
    """Return the first word of a statement in capitals, comments passed over; empty if there is none.

    >>> first_word("/* nightly */ insert into t")
    'INSERT'
    """
    match = _FIRST_WORD.match(text)
    return match[1].upper() if match else ""


_ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def folded(name: str) -> str:
    """Return an unquoted name as DataFusion folds it: letters of ASCII only.

    >>> folded("Übung_A")
    'Übung_a'
    """
    return name.translate(_ASCII_LOWER)


def quote_identifier(*parts: str) -> str:
    """Return a name as SQL that means exactly it, whatever is in it.

    >>> quote_identifier("lake", 'a"b')
    '"lake"."a""b"'
    """
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a SQL dialect spells names, texts and comments.

    Attributes:
        has_brackets: a name may stand in square brackets.
        quote: the character around a name that is to be taken as it stands.
        has_escapes: a backslash in a text starts an escape sequence.
        has_hash_comments: a `#` starts a comment.
        has_bare_dashes: `--` starts a comment only before white space.
    """

    has_brackets: bool = False
    quote: str = '"'
    has_escapes: bool = False
    has_hash_comments: bool = False
    has_bare_dashes: bool = False

    def quote_identifier(self, *parts: str) -> str:
        """Return a name as SQL that means exactly it in this dialect, whatever is in it.

        >>> Spelling(quote="`").quote_identifier("lake", "a`b")
        '`lake`.`a``b`'
        """
        return ".".join(
            self.quote + part.replace(self.quote, self.quote * 2) + self.quote for part in parts
        )


GENERIC = Spelling()
"""What DataFusion takes where no dialect is set."""

WITH_BRACKETS = Spelling(has_brackets=True)
"""The spelling of Transact-SQL."""

_BARE_DASHES = re.compile(r"--(?=\S)")


@cache
def _tokenizer(spelling: Spelling) -> type[Tokenizer]:
    from sqlglot.tokens import Tokenizer  # noqa: PLC0415 - heavy, few statements need it

    has_texts_in_double_quotes = spelling.quote != '"'

    class WordByWord(Tokenizer):
        """Takes no word for the start of a foreign command, whose rest would be one text."""

        COMMANDS: ClassVar[set[Any]] = set()
        # Where names are not in double quotes, texts may be; where they are, the engine takes no
        # text in backticks.
        IDENTIFIERS: ClassVar[list[Any]] = [
            "`",
            *([] if has_texts_in_double_quotes else ['"']),
            *([("[", "]")] if spelling.has_brackets else []),
        ]
        QUOTES: ClassVar[list[Any]] = ["'", '"'] if has_texts_in_double_quotes else ["'"]
        STRING_ESCAPES: ClassVar[list[str]] = [
            *QUOTES,
            *(["\\"] if spelling.has_escapes else []),
        ]
        COMMENTS: ClassVar[list[Any]] = [
            *Tokenizer.COMMENTS,
            *(["#"] if spelling.has_hash_comments else []),
        ]
        # Nor two words for one.
        KEYWORDS: ClassVar[dict[str, Any]] = {
            word: kind for word, kind in Tokenizer.KEYWORDS.items() if " " not in word
        }

    return WordByWord


class Words:
    """A statement's words and a place among them.

    Args:
        text: the statement.
        normalize: whether unquoted names are folded to lower case, as DataFusion does by default.
        spelling: how the session's dialect spells names and texts.

    Raises:
        StatementError: the text has no words, such as an open quote.

    >>> words = Words("COPY (SELECT 1) TO 'x'")
    >>> words.take("COPY"), words.until({"TO"}), words.take("TO"), words.string()
    (True, '(SELECT 1)', True, 'x')
    """

    def __init__(self, text: str, *, normalize: bool = True, spelling: Spelling = GENERIC) -> None:
        from sqlglot.errors import TokenError  # noqa: PLC0415 - heavy, few statements need it
        from sqlglot.tokens import TokenType  # type: ignore[attr-defined]  # noqa: PLC0415 - as above; re-exported

        if spelling.has_bare_dashes and _BARE_DASHES.search(text):
            msg = "the statement cannot be read: put a space after --, or around a minus sign"
            raise StatementError(msg)
        self.text = text
        self._normalize = normalize
        self._quoted_name = TokenType.IDENTIFIER
        self._string = TokenType.STRING
        try:
            tokens = _tokenizer(spelling)().tokenize(text)
        except TokenError as error:
            msg = "the statement cannot be read: a quote or a comment is left open"
            raise StatementError(msg) from error
        while tokens and tokens[-1].text == ";":
            tokens.pop()
        self._tokens: list[Token] = tokens
        self._at = 0

    @property
    def at_end(self) -> bool:
        """Whether every word has been read."""
        return self._at >= len(self._tokens)

    @property
    def position(self) -> int:
        """Where in the text the next word starts; the text's end when there is none."""
        return len(self.text) if self.at_end else self._tokens[self._at].start

    @property
    def end_position(self) -> int:
        """Where in the text the last word that was read ends."""
        return self._tokens[self._at - 1].end + 1 if self._at else 0

    def peek(self, *words: str) -> bool:
        """Tell whether the next words are these."""
        return all(self._word(self._at + step) == word for step, word in enumerate(words))

    def contain(self, *words: str) -> bool:
        """Tell whether these words stand anywhere in the statement, in this order."""
        places = range(len(self._tokens) - len(words) + 1)
        return any(
            all(self._word(place + step) == word for step, word in enumerate(words))
            for place in places
        )

    def take(self, *words: str) -> bool:
        """Read these words if they are next, and tell whether they were."""
        if not self.peek(*words):
            return False
        self._at += len(words)
        return True

    def with_words(self, others: Mapping[str, str]) -> str:
        """Return the text with each of these words replaced, wherever it is a word of its own."""
        text, end = "", 0
        for token in self._tokens:
            is_quoted = token.token_type in {self._string, self._quoted_name}
            if token.text in others and not is_quoted:
                text += self.text[end : token.start] + others[token.text]
                end = token.end + 1
        return text + self.text[end:]

    def rewind(self) -> None:
        """Start again at the first word."""
        self._at = 0

    def skip(self) -> None:
        """Pass over one word."""
        self._next("a word")

    def expect(self, *words: str) -> None:
        """Read these words.

        Raises:
            StatementError: others are next.
        """
        if not self.take(*words):
            self._fail(" ".join(words))

    def expect_end(self) -> None:
        """Take note that the statement ends here.

        Raises:
            StatementError: it goes on.
        """
        if not self.at_end:
            self._fail("the end of the statement")

    def reference(self) -> tuple[str, ...]:
        """Read a table's name, dotted or not, as its parts."""
        parts = [self.name()]
        while self.take("."):
            parts.append(self.name())
        return tuple(parts)

    def name(self) -> str:
        """Read one name; an unquoted one is folded as DataFusion folds it."""
        token = self._next("a name")
        if token.token_type is self._quoted_name:
            return token.text
        if token.token_type is self._string or not re.match(r"[^\W\d]", token.text):
            self._at -= 1
            self._fail("a name")
        return folded(token.text) if self._normalize else token.text

    def parameter(self) -> str | None:
        """Read a parameter such as `$name` if it is next, and return it."""
        if self.at_end or not self._tokens[self._at].text.startswith("$"):
            return None
        return self._next("a parameter").text

    def has_parameters(self) -> bool:
        """Tell whether a parameter such as `$1` stands anywhere in the statement."""
        return any(
            token.text.startswith("$") and token.token_type not in {self._string, self._quoted_name}
            for token in self._tokens
        )

    def names(self) -> tuple[str, ...]:
        """Read names in parentheses, divided by commas."""
        self.expect("(")
        found = [self.name()]
        while self.take(","):
            found.append(self.name())
        self.expect(")")
        return tuple(found)

    def string(self) -> str:
        """Read a text literal."""
        token = self._next("a text in quotes")
        if token.token_type is not self._string:
            self._at -= 1
            self._fail("a text in quotes")
        return token.text

    def number(self) -> int:
        """Read a whole number."""
        token = self._next("a whole number")
        if not token.text.isdecimal():
            self._at -= 1
            self._fail("a whole number")
        return int(token.text)

    def options(self) -> dict[str, str]:
        """Read `('key' 'value', ...)`; a prefix `format.`, as DataFusion knows it, means nothing here."""
        self.expect("(")
        found = {}
        while True:
            key = self._next("an option").text
            while self.take("."):
                key += "." + self._next("an option").text
            found[key.removeprefix("format.")] = self._next("an option's value").text
            if not self.take(","):
                break
        self.expect(")")
        return found

    def until(self, words: Collection[str]) -> str:
        """Read on to the first of these words outside parentheses and CASE; return the text read."""
        first, depth, cases = self._at, 0, 0
        while not self.at_end:
            word = self._word(self._at)
            if depth == 0 and cases == 0 and word in words:
                break
            if word in _OPENING:
                depth += 1
            elif word in _CLOSING:
                if depth == 0:
                    break
                depth -= 1
            elif word == "CASE":
                cases += 1
            elif word == "END" and cases:
                cases -= 1
            self._at += 1
        if self._at == first:
            self._fail("an expression")
        return self.text[self._tokens[first].start : self._tokens[self._at - 1].end + 1]

    def rest(self) -> str:
        """Read everything that is left; return its text."""
        return self.until(())

    def _word(self, index: int) -> str:
        """Return a word in capitals; a quoted name or a text is never taken for a keyword."""
        if index >= len(self._tokens):
            return ""
        token = self._tokens[index]
        is_literal = token.token_type in {self._quoted_name, self._string}
        return "" if is_literal else token.text.upper()

    def _next(self, wanted: str) -> Token:
        if self.at_end:
            self._fail(wanted)
        self._at += 1
        return self._tokens[self._at - 1]

    def _fail(self, wanted: str) -> None:
        # What stands there instead may be a literal, so only its place is told.
        msg = f"the statement cannot be read: expected {wanted} at character {self.position + 1}"
        raise StatementError(msg)
