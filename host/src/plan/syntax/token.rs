//! The text of an expression to its words.

use super::super::diagnostic::{Fault, Span};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Integer(u64),
    Text(Vec<u8>),
    Name(String),
    Symbol(&'static str),
    End,
}

impl TokenKind {
    pub fn shown(&self) -> String {
        match self {
            TokenKind::Integer(n) => format!("the number {n}"),
            TokenKind::Text(_) => "a string".to_owned(),
            TokenKind::Name(name) => format!("`{name}`"),
            TokenKind::Symbol(symbol) => format!("`{symbol}`"),
            TokenKind::End => "the end".to_owned(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Token {
    pub kind: TokenKind,
    pub span: Span,
}

/// Longest first, so that `<<` is not read as two `<`.
const SYMBOLS: [&str; 28] = [
    "->", "||", "&&", "==", "!=", "<=", ">=", "<<", ">>", "|", "^", "&", "<", ">", "+", "-", "*", "/", "%", "!", "~",
    "?", ":", "(", ")", ".", ",", "=",
];

pub fn tokenize(text: &str) -> Result<Vec<Token>, Fault> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let kind = match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'0'..=b'9' => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                    at += 1;
                }
                if bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
                    return Err(fraction(text, start));
                }
                TokenKind::Integer(integer(&text[start..at]).map_err(|m| no_integer(text, Span::new(start, at), m))?)
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                    at += 1;
                }
                TokenKind::Name(text[start..at].to_owned())
            }
            b'"' => TokenKind::Text(quoted(text, &mut at, b'"')?),
            b'\'' => match quoted(text, &mut at, b'\'')?.as_slice() {
                [byte] => TokenKind::Integer(u64::from(*byte)),
                _ => {
                    return Err(Fault::new(Span::new(start, at), "a character in `'` is exactly one byte")
                        .help("a string stands in `\"`"));
                }
            },
            b'[' | b']' => {
                at += 1;
                TokenKind::Symbol(if bytes[start] == b'[' { "[" } else { "]" })
            }
            b'@' => {
                return Err(Fault::new(Span::new(at, at + 1), "maps (`@name`) are not there yet"));
            }
            b'$' => {
                return Err(Fault::new(Span::new(at, at + 1), "a variable has no `$`")
                    .help("a `bind` step names a value, and the name stands alone"));
            }
            _ => match SYMBOLS.iter().find(|s| text[at..].starts_with(**s)) {
                Some(symbol) => {
                    at += symbol.len();
                    TokenKind::Symbol(symbol)
                }
                None => {
                    let c = text[at..].chars().next().unwrap_or(' ');
                    let fault =
                        Fault::new(Span::new(at, at + c.len_utf8()), format!("`{c}` is no part of an expression"));
                    return Err(match c {
                        ';' | '{' | '}' => fault.help("it is one value; what is done with values stands in the steps"),
                        _ => fault,
                    });
                }
            },
        };
        tokens.push(Token { kind, span: Span::new(start, at) });
    }
    tokens.push(Token { kind: TokenKind::End, span: Span::new(text.len(), text.len()) });
    Ok(tokens)
}

/// `1.5`, as other languages have it.
fn fraction(text: &str, start: usize) -> Fault {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    let end = text[start..].find(|c| !is_part(c)).map_or(text.len(), |length| start + length);
    let fault =
        Fault::new(Span::new(start, end), format!("`{}` is no integer, and there are no others", &text[start..end]));
    fault.help("compute in smaller units, or let a handler divide")
}

fn no_integer(text: &str, at: Span, message: String) -> Fault {
    let word = &text[at.start as usize..at.end as usize];
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_decimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let fault = Fault::new(at, message);
    match &word[digits.len()..] {
        "ns" | "us" | "ms" | "s" | "m" | "h" if is_decimal => {
            fault.help("times are integers of nanoseconds: 1_000_000_000 is a second")
        }
        _ => fault.help("integers are 10, 0x1f, 017 or 0b11, of 64 bits at most"),
    }
}

/// An integer as C writes it, with `_` between digits and C's suffixes allowed.
fn integer(text: &str) -> Result<u64, String> {
    let body = text.trim_end_matches(['u', 'U', 'l', 'L']).replace('_', "");
    let lower = body.to_ascii_lowercase();
    let (digits, radix) = if let Some(digits) = lower.strip_prefix("0x") {
        (digits, 16)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (digits, 2)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (&lower[1..], 8)
    } else {
        (lower.as_str(), 10)
    };
    u64::from_str_radix(digits, radix).map_err(|e| match e.kind() {
        std::num::IntErrorKind::PosOverflow => format!("{text} does not fit in 64 bits"),
        _ => format!("`{text}` is not a number"),
    })
}

/// What stands between two quotes, escapes resolved; `at` moves behind the second.
fn quoted(text: &str, at: &mut usize, quote: u8) -> Result<Vec<u8>, Fault> {
    let bytes = text.as_bytes();
    let start = *at;
    let mut value = Vec::new();
    *at += 1;
    loop {
        match bytes.get(*at) {
            None => return Err(Fault::new(Span::new(start, bytes.len()), "the closing quote is missing")),
            Some(&b) if b == quote => {
                *at += 1;
                return Ok(value);
            }
            Some(b'\\') => {
                let from = *at;
                let bad = |to: usize| {
                    Fault::new(Span::new(from, to.min(bytes.len())), "unknown escape")
                        .help(r#"there are \n \t \r \\ \" \' and \xHH"#)
                };
                let byte = match bytes.get(from + 1) {
                    Some(b'n') => b'\n',
                    Some(b't') => b'\t',
                    Some(b'r') => b'\r',
                    Some(&b @ (b'\\' | b'"' | b'\'')) => b,
                    Some(b'x') => {
                        let digits = text.get(from + 2..from + 4).ok_or_else(|| bad(from + 2))?;
                        *at += 2;
                        u8::from_str_radix(digits, 16).map_err(|_| bad(from + 4))?
                    }
                    _ => return Err(bad(from + 2)),
                };
                if byte == 0 && quote == b'"' {
                    return Err(Fault::new(Span::new(from, *at + 2), "a string cannot hold a 0 byte"));
                }
                value.push(byte);
                *at += 2;
            }
            Some(&b) => {
                value.push(b);
                *at += 1;
            }
        }
    }
}
