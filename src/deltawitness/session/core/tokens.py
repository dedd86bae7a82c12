"""Parse SQL text token by token: for statements and clauses whose parsed form DataFusion hides.

sqlglot's tokenizer splits the text, because it handles quotes and comments;
:mod:`deltawitness.sql_statements` says which texts need this, by their first words. Expressions are cut out
as text and planned by DataFusion, which alone decides what they mean.
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
    "folded",
    "reference_parts",
]

MAX_NAME_PARTS = 3
"""Parts of a table's full name: catalog, schema and table."""

_OPENING = frozenset({"(", "[", "{"})
_CLOSING = frozenset({")", "]", "}"})


_ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def folded(name: str) -> str:
    """Return an unquoted name in lower case as DataFusion folds it: ASCII letters only.

    >>> folded("Übung_A")
    'Übung_a'
    """
    return name.translate(_ASCII_LOWER)


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a SQL dialect quotes names and strings and starts comments.

    Attributes:
        has_brackets: a name may be quoted with square brackets.
        quote: the character that quotes a name.
        has_escapes: a backslash in a string literal starts an escape sequence.
        has_hash_comments: a `#` starts a comment.
        has_bare_dashes: `--` starts a comment only before white space.
    """

    has_brackets: bool = False
    quote: str = '"'
    has_escapes: bool = False
    has_hash_comments: bool = False
    has_bare_dashes: bool = False

    def quote_identifier(self, *parts: str) -> str:
        """Return a dotted name with each part quoted as an identifier of this dialect.

        >>> Spelling(quote="`").quote_identifier("lake", "a`b")
        '`lake`.`a``b`'
        """
        return ".".join(
            self.quote + part.replace(self.quote, self.quote * 2) + self.quote for part in parts
        )


GENERIC = Spelling()
"""The spelling of DataFusion's default dialect."""

WITH_BRACKETS = Spelling(has_brackets=True)
"""The spelling of Transact-SQL."""

_BARE_DASHES = re.compile(r"--(?=\S)")


@cache
def _tokenizer(spelling: Spelling) -> type[Tokenizer]:
    from sqlglot.tokens import Tokenizer  # noqa: PLC0415 - heavy, few statements need it

    has_texts_in_double_quotes = spelling.quote != '"'

    class WordByWord(Tokenizer):
        """A tokenizer that treats no word as a command whose rest is a single string."""

        COMMANDS: ClassVar[set[Any]] = set()
        # Double quotes quote either names or strings. Backticks always quote names.
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
        # Without the keywords of two words, which would become one token.
        KEYWORDS: ClassVar[dict[str, Any]] = {
            word: kind for word, kind in Tokenizer.KEYWORDS.items() if " " not in word
        }

    return WordByWord


class Words:
    """The tokens of a statement and a position among them.

    Args:
        text: the statement.
        normalize: whether unquoted names are folded to lower case, as DataFusion does by default.
        spelling: how the session's dialect quotes names and strings.

    Raises:
        StatementError: the text cannot be tokenized, for example because a quote is not closed.

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
        """Whether all tokens have been read."""
        return self._at >= len(self._tokens)

    @property
    def position(self) -> int:
        """The index in the text at which the next token starts; the length of the text at its end."""
        return len(self.text) if self.at_end else self._tokens[self._at].start

    @property
    def end_position(self) -> int:
        """The index in the text just after the last token that was read."""
        return self._tokens[self._at - 1].end + 1 if self._at else 0

    def peek(self, *words: str) -> bool:
        """Return whether the next tokens are these words."""
        return all(self._word(self._at + step) == word for step, word in enumerate(words))

    def contain(self, *words: str) -> bool:
        """Return whether these words follow each other anywhere in the statement."""
        places = range(len(self._tokens) - len(words) + 1)
        return any(
            all(self._word(place + step) == word for step, word in enumerate(words))
            for place in places
        )

    def take(self, *words: str) -> bool:
        """Read these words if they are next; return whether they were."""
        if not self.peek(*words):
            return False
        self._at += len(words)
        return True

    def with_words(self, others: Mapping[str, str]) -> str:
        """Return the text with tokens replaced, except inside quotes.

        Args:
            others: the replacement of each token, by the token's text.
        """
        text, end = "", 0
        for token in self._tokens:
            is_quoted = token.token_type in {self._string, self._quoted_name}
            if token.text in others and not is_quoted:
                text += self.text[end : token.start] + others[token.text]
                end = token.end + 1
        return text + self.text[end:]

    def rewind(self) -> None:
        """Go back to the first token."""
        self._at = 0

    def skip(self) -> None:
        """Read one token and ignore it."""
        self._next("a word")

    def expect(self, *words: str) -> None:
        """Read these words.

        Raises:
            StatementError: the next tokens are others.
        """
        if not self.take(*words):
            self._fail(" ".join(words))

    def expect_end(self) -> None:
        """Require that all tokens have been read.

        Raises:
            StatementError: there are more tokens.
        """
        if not self.at_end:
            self._fail("the end of the statement")

    def reference(self) -> tuple[str, ...]:
        """Read a table's name and return its dotted parts."""
        parts = [self.name()]
        while self.take("."):
            parts.append(self.name())
        return tuple(parts)

    def name(self) -> str:
        """Read one name; an unquoted one is folded to lower case if `normalize` is set."""
        token = self._next("a name")
        if token.token_type is self._quoted_name:
            return token.text
        if token.token_type is self._string or not re.match(r"[^\W\d]", token.text):
            self._at -= 1
            self._fail("a name")
        return folded(token.text) if self._normalize else token.text

    def parameter(self) -> str | None:
        """Read and return a parameter such as `$name` if it is next, or return None."""
        if self.at_end or not self._tokens[self._at].text.startswith("$"):
            return None
        return self._next("a parameter").text

    def has_parameters(self) -> bool:
        """Return whether the statement has a parameter such as `$1`."""
        return any(
            token.text.startswith("$") and token.token_type not in {self._string, self._quoted_name}
            for token in self._tokens
        )

    def names(self) -> tuple[str, ...]:
        """Read a list of names in parentheses, separated by commas."""
        self.expect("(")
        found = [self.name()]
        while self.take(","):
            found.append(self.name())
        self.expect(")")
        return tuple(found)

    def string(self) -> str:
        """Read a string literal and return its value."""
        token = self._next("a text in quotes")
        if token.token_type is not self._string:
            self._at -= 1
            self._fail("a text in quotes")
        return token.text

    def number(self) -> int:
        """Read a non-negative integer."""
        token = self._next("an integer")
        if not token.text.isdecimal():
            self._at -= 1
            self._fail("an integer")
        return int(token.text)

    def options(self) -> dict[str, str]:
        """Read `('key' 'value', ...)` as a mapping, without DataFusion's key prefix `format.`."""
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
        """Read up to the first of these words outside parentheses and CASE; return the text read."""
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
        """Read up to the end, or to an unmatched closing parenthesis; return the text read."""
        return self.until(())

    def _word(self, index: int) -> str:
        """Return a token in capitals; empty for a quoted name or a string, which are no keywords."""
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
        # The actual token may be a literal, so the message has only its position.
        msg = f"the statement cannot be read: expected {wanted} at character {self.position + 1}"
        raise StatementError(msg)


def reference_parts(name: str) -> tuple[str, ...]:
    """Return the normalized parts of a table reference; a text that is none is one part, unchanged.

    >>> reference_parts('Sales."Orders"'), reference_parts("a b")
    (('sales', 'Orders'), ('a b',))
    """
    if name.isascii() and name.isidentifier():
        return (folded(name),)
    try:
        words = Words(name, normalize=True)
        parts = words.reference()
    except StatementError:
        return (name,)
    return parts if words.at_end and len(parts) <= MAX_NAME_PARTS else (name,)
