//! Text that came from elsewhere, made fit for where it goes.

use std::fmt::Write;

use crate::plan::is_unsafe;

/// Text for a terminal: control characters, and those that change the direction of text, escaped; a backslash stays as
/// it is.
pub fn terminal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_unsafe(c) => push(&mut out, format_args!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Bytes as text without loss: what is UTF-8 stays, a backslash is doubled, any other byte is `\xNN`.
pub fn bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                out.push('\\');
            }
            out.push(c);
        }
        for byte in chunk.invalid() {
            push(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    out
}

/// Bytes as text without loss, and nothing in it that is not printable: control characters are `\xNN`, too.
pub fn all(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if is_unsafe(c) => {
                    c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push(&mut out, format_args!("\\x{byte:02x}")));
                }
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| push(&mut out, format_args!("\\x{byte:02x}")));
    }
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        assert_eq!(bytes(b"/tmp/\xff\\a\xc3\xa9"), "/tmp/\\xff\\\\a\u{e9}");
        assert_eq!(all(b"/tmp/\xff\\a\xc3\xa9\x1b\n"), "/tmp/\\xff\\\\a\u{e9}\\x1b\\x0a");
        assert_eq!(terminal("a\u{1b}[2Jb\n\u{202e}"), "a\\u{1b}[2Jb\\n\\u{202e}");
    }
}
