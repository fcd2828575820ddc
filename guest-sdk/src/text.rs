//! Messages, put together without `format!`: a plugin that formats nothing itself is smaller so.

/// The parts, one behind the other. Not inlined: there are many calls, and none of them is hot.
#[inline(never)]
pub(crate) fn concat(parts: &[&str]) -> String {
    parts.concat()
}
