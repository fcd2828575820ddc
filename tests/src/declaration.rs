//! Declarations as short text, for tests to be read.
//!
//! One line for each thing that a declaration holds, in its order; what stands behind a `probe` belongs to it, and
//! fields are indented behind their `emit`:
//!
//! ```text
//! # a comment
//! tick 1000
//! probe opens
//! attach tracepoint:syscalls:sys_enter_openat
//! bind path = str(args.filename)
//! when pid != 0
//! emit open
//!   pid = pid
//!   path = path
//! ```
//!
//! `kfunc NAME` lists a kernel function, and `kfunc NAME?` one that a kernel may lack. `map NAME` and `update NAME`
//! make things that are not there yet. For what nobody wants to read, a line that ends in ` × N` stands for N lines, in
//! which `#` is their number from 1; `%{text*N}` is the text N times; and `%{U+1B}` is the character of that code.

use porthole::declare::{
    Binding, Change, Declaration, Event, Field, KfuncClaim, KfuncUse, MapKind, MapUse, Probe, Step, Update,
};

/// Reads a declaration; the error names the line.
pub fn parse(text: &str) -> Result<Declaration, String> {
    let mut declaration = Declaration::default();
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        for line in repeated(line) {
            let at = |error: String| format!("line {number}: {error}: {line}");
            add(&mut declaration, &expanded(&line).map_err(at)?).map_err(at)?;
        }
    }
    Ok(declaration)
}

/// A probe as [`parse`] reads it.
pub fn text(probe: &Probe) -> String {
    let mut text = format!("probe {}\n", probe.name);
    probe.attach.iter().for_each(|point| text.push_str(&format!("attach {point}\n")));
    for step in &probe.body {
        match step {
            Step::Bind(binding) => text.push_str(&format!("bind {} = {}\n", binding.name, binding.value)),
            Step::When(condition) => text.push_str(&format!("when {condition}\n")),
            Step::Update(update) => text.push_str(&format!("update {}\n", update.target)),
            Step::Emit(event) => {
                text.push_str(&format!("emit {}\n", event.name));
                event.fields.iter().for_each(|field| text.push_str(&format!("  {} = {}\n", field.name, field.value)));
            }
        }
    }
    text
}

/// One probe at one attach point, whose event `e` has these fields; for tests that are all about expressions.
pub fn of_fields<'a>(attach: &str, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Declaration {
    let fields = fields.into_iter().map(|(name, value)| field(name, value)).collect();
    let body = vec![Step::Emit(Event { name: "e".to_owned(), fields })];
    let probe = Probe { name: "p".to_owned(), attach: vec![attach.to_owned()], body };
    Declaration { probes: vec![probe], ..Declaration::default() }
}

/// A `bind` step.
pub fn bind(name: &str, value: &str) -> Step {
    Step::Bind(Binding { name: name.to_owned(), value: value.to_owned() })
}

fn add(declaration: &mut Declaration, line: &str) -> Result<(), String> {
    if let Some(line) = line.strip_prefix("  ") {
        let (name, value) = named(line)?;
        match body(declaration)?.last_mut() {
            Some(Step::Emit(event)) => event.fields.push(field(name, value)),
            _ => return Err("a field stands behind no `emit`".to_owned()),
        }
        return Ok(());
    }
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "tick" => declaration.tick = Some(rest.parse().map_err(|e| format!("{e}"))?),
        "kfunc" => declaration.kfuncs.push(kfunc(rest)?),
        "map" => declaration.maps.push(MapUse { name: rest.to_owned(), kind: MapKind::Count, max_entries: 1 }),
        "probe" => declaration.probes.push(Probe { name: rest.to_owned(), attach: Vec::new(), body: Vec::new() }),
        "attach" => last(declaration)?.attach.push(rest.to_owned()),
        "bind" => {
            let (name, value) = named(rest)?;
            body(declaration)?.push(bind(name, value));
        }
        "when" => body(declaration)?.push(Step::When(rest.to_owned())),
        "update" => {
            let update = Update { target: rest.to_owned(), key: Vec::new(), change: Change::Add("1".to_owned()) };
            body(declaration)?.push(Step::Update(update));
        }
        "emit" => body(declaration)?.push(Step::Emit(Event { name: rest.to_owned(), fields: Vec::new() })),
        _ => return Err(format!("unknown word `{word}`")),
    }
    Ok(())
}

/// `NAME`, `NAME?` for one that a kernel may lack, and behind it what is claimed: `owned=RELEASE`, `null`, `sleeps`, or
/// `plain` for none of these.
fn kfunc(text: &str) -> Result<KfuncUse, String> {
    let (name, claims) = text.split_once(' ').unwrap_or((text, ""));
    let (name, required) = name.strip_suffix('?').map_or((name, true), |name| (name, false));
    let mut claim = KfuncClaim { released_by: None, may_be_null: false, may_sleep: false };
    for word in claims.split_whitespace() {
        match word.split_once('=') {
            Some(("owned", by)) => claim.released_by = Some(by.to_owned()),
            None if word == "null" => claim.may_be_null = true,
            None if word == "sleeps" => claim.may_sleep = true,
            None if word == "plain" => {}
            _ => return Err(format!("unknown claim `{word}`")),
        }
    }
    let claim = (!claims.is_empty()).then_some(claim);
    Ok(KfuncUse { name: name.to_owned(), required, claim })
}

fn field(name: &str, value: &str) -> Field {
    Field { name: name.to_owned(), value: value.to_owned() }
}

fn last(declaration: &mut Declaration) -> Result<&mut Probe, String> {
    declaration.probes.last_mut().ok_or_else(|| "it stands in front of any `probe`".to_owned())
}

fn body(declaration: &mut Declaration) -> Result<&mut Vec<Step>, String> {
    Ok(&mut last(declaration)?.body)
}

/// `name = value`; either may be empty.
fn named(text: &str) -> Result<(&str, &str), String> {
    let (name, value) = text.split_once('=').ok_or("`NAME = EXPRESSION` is expected")?;
    Ok((name.trim_end(), value.strip_prefix(' ').unwrap_or(value)))
}

/// The lines that one stands for.
fn repeated(line: &str) -> Vec<String> {
    match line.rsplit_once(" × ").map(|(line, times)| (line, times.parse::<usize>())) {
        Some((line, Ok(times))) => (1..=times).map(|n| line.replace('#', &n.to_string())).collect(),
        _ => vec![line.to_owned()],
    }
}

/// The line with its `%{…}` written out.
fn expanded(line: &str) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), line);
    while let Some((before, behind)) = rest.split_once("%{") {
        let (inside, after) = behind.split_once('}').ok_or("`%{` is not closed")?;
        out.push_str(before);
        match inside.strip_prefix("U+") {
            Some(code) => {
                let code = u32::from_str_radix(code, 16).map_err(|e| format!("{inside}: {e}"))?;
                out.push(char::from_u32(code).ok_or_else(|| format!("{inside} is no character"))?);
            }
            None => {
                let (text, times) = inside.rsplit_once('*').ok_or_else(|| format!("{inside}: no `*`"))?;
                out.push_str(&text.repeat(times.parse().map_err(|e| format!("{inside}: {e}"))?));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_declaration() {
        let text = "# c\ntick 5\nprobe p# × 2\nattach a:b\nbind x = 1 == 2\nemit e\n  f# = %{ab*3}%{U+1B} × 2\n  g =\n";
        let declaration = parse(text).unwrap();
        assert_eq!((declaration.tick, declaration.probes.len()), (Some(5), 2));
        let probe = &declaration.probes[1];
        assert_eq!((probe.name.as_str(), probe.attach.as_slice()), ("p2", &["a:b".to_owned()][..]));
        assert_eq!(probe.body[0], bind("x", "1 == 2"));
        let fields = vec![field("f1", "ababab\u{1b}"), field("f2", "ababab\u{1b}"), field("g", "")];
        assert_eq!(probe.body[1], Step::Emit(Event { name: "e".into(), fields }));
        assert_eq!(parse(&super::text(probe)).unwrap().probes[0], *probe);
        assert!(parse("attach x").unwrap_err().starts_with("line 1: "));
    }
}
