//! The declaration: made of the events' specifications, and adjusted by the plugin.

use crate::bindings::porthole::trace::declarations::{Binding, Declaration, Event, Field, KfuncUse, Probe, Step};
use crate::{ProbeSpec, StepSpec};

impl Declaration {
    pub(crate) fn new(probes: &[ProbeSpec]) -> Declaration {
        let made = probes.iter().map(Probe::new).collect();
        let mut declaration = Declaration { kfuncs: Vec::new(), maps: Vec::new(), probes: made, tick: None };
        for kfunc in probes.iter().flat_map(|probe| probe.kfuncs) {
            declaration.list(kfunc.name, kfunc.required);
        }
        declaration
    }

    /// Lists a kernel function that expressions call and the plugin cannot do without.
    pub fn kfunc(&mut self, name: &str) {
        self.list(name, true);
    }

    /// Lists one that a kernel may lack: there, what calls it is absent.
    pub fn optional_kfunc(&mut self, name: &str) {
        self.list(name, false);
    }

    fn list(&mut self, name: &str, required: bool) {
        match self.kfuncs.iter_mut().find(|listed| listed.name == name) {
            Some(listed) => listed.required |= required,
            None => self.kfuncs.push(KfuncUse { name: name.to_owned(), required, claim: None }),
        }
    }

    /// Lets all probes send only where the expression is true.
    pub fn when(&mut self, condition: &str) {
        for probe in &mut self.probes {
            probe.when(condition);
        }
    }

    /// The probe of this name.
    pub fn probe(&mut self, name: &str) -> Option<&mut Probe> {
        self.probes.iter_mut().find(|probe| probe.name == name)
    }

    /// Asks for [`Plugin::on_tick`](crate::Plugin::on_tick) every so many milliseconds, 10 to 86,400,000.
    pub fn tick(&mut self, milliseconds: u32) {
        self.tick = Some(milliseconds);
    }
}

impl Probe {
    fn new(spec: &ProbeSpec) -> Probe {
        let steps = spec.steps.iter().map(|step| match *step {
            StepSpec::Bind { name, value } => Step::Bind(Binding { name: name.to_owned(), value: value.to_owned() }),
            StepSpec::When(condition) => Step::When(condition.to_owned()),
        });
        let fields =
            spec.fields.iter().map(|field| Field { name: field.name.to_owned(), value: field.expression.to_owned() });
        let emit = Step::Emit(Event { name: spec.event.to_owned(), fields: fields.collect() });
        Probe {
            name: spec.name.to_owned(),
            attach: spec.attach.iter().map(|&attach| attach.to_owned()).collect(),
            body: steps.chain([emit]).collect(),
        }
    }

    /// Lets the probe send only where the expression is true. It is asked before the probe's own steps, and so cannot
    /// use what they bind; where several are added, the last one added is asked first.
    pub fn when(&mut self, condition: &str) {
        self.body.insert(0, Step::When(condition.to_owned()));
    }

    /// Names a value. It is computed before the probe's own steps and before what has been added until now, and all of
    /// these can use it.
    pub fn bind(&mut self, name: &str, value: &str) {
        self.body.insert(0, Step::Bind(Binding { name: name.to_owned(), value: value.to_owned() }));
    }
}

/// A string literal of Porthole's expression language that means this text.
///
/// ```
/// # use porthole_guest::quote;
/// let name = r#"a "quoted" name"#;
/// assert_eq!(format!("comm == {}", quote(name)), r#"comm == "a \"quoted\" name""#);
/// ```
pub fn quote(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    let mut buffer = [0; 4];
    for c in text.chars() {
        literal.push_str(match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\t' => "\\t",
            '\r' => "\\r",
            '\0'..='\x1f' | '\x7f' => {
                buffer = [b'\\', b'x', hex_digit(c as u8 >> 4), hex_digit(c as u8 & 15)];
                std::str::from_utf8(&buffer).unwrap_or_default()
            }
            _ => c.encode_utf8(&mut buffer),
        });
    }
    literal.push('"');
    literal
}

fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_last_comes_first() {
        let mut probe = Probe { name: "p".to_owned(), attach: Vec::new(), body: vec![Step::When("a".to_owned())] };
        probe.when("b");
        probe.bind("c", "pid");
        let bound = Step::Bind(Binding { name: "c".to_owned(), value: "pid".to_owned() });
        assert_eq!(probe.body, [bound, Step::When("b".to_owned()), Step::When("a".to_owned())]);
    }

    #[test]
    fn quoted_text_is_escaped() {
        assert_eq!(quote("nginx"), r#""nginx""#);
        assert_eq!(quote("a\"b\\c\n\t\r\x01\x7fé"), r#""a\"b\\c\n\t\r\x01\x7fé""#);
    }
}
