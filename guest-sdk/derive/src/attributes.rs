//! The attributes, parsed and checked as far as that needs no kernel. Errors point at the token that is wrong.

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Ident, LitStr, Result, Token, bracketed, parenthesized, token};

/// Bytes of an identifier at most; see `wit/declarations.wit` for this bound and those below.
const MAX_NAME: usize = 64;
const MAX_ATTACH: usize = 256;
const MAX_EXPRESSION: usize = 4096;

/// One `#[probe(…)]`.
pub struct ProbeAttribute {
    /// The attribute itself, for errors about what is missing in it.
    pub span: Span,
    pub name: Option<LitStr>,
    pub attach: Vec<LitStr>,
    /// Names of kernel functions that its expressions call; `?` behind one that a kernel may lack.
    pub kfuncs: Vec<LitStr>,
    pub steps: Vec<StepAttribute>,
}

/// `when` or a part of `bind`, in the order in which they stand.
pub enum StepAttribute {
    When(LitStr),
    Bind(Ident, LitStr),
}

/// All `#[probe(…)]` of a struct.
pub fn probes(attributes: &[Attribute]) -> Result<Vec<ProbeAttribute>> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("probe")).map(probe).collect()
}

/// The name in `#[event(name = "…")]`.
pub fn event_name(attributes: &[Attribute]) -> Result<Option<LitStr>> {
    let mut name = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("event")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                return set_once(&mut name, &meta, identifier(meta.value()?.parse()?)?);
            }
            Err(meta.error("unknown attribute: `event` has `name = \"…\"`"))
        })?;
    }
    Ok(name)
}

/// The expression in a field's `#[expr("…")]`.
pub fn expression(attributes: &[Attribute]) -> Result<Option<LitStr>> {
    let mut found = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("expr")) {
        if found.is_some() {
            return Err(Error::new_spanned(attribute, "a field has one expression"));
        }
        let text = attribute
            .parse_args::<LitStr>()
            .map_err(|error| Error::new(error.span(), "write the field's expression as `#[expr(\"…\")]`"))?;
        found = Some(bounded(text, MAX_EXPRESSION, "an expression")?);
    }
    Ok(found)
}

/// An attribute of a field that belongs elsewhere is likely meant as `expr`.
pub fn refuse_on_field(attributes: &[Attribute]) -> Result<()> {
    match attributes.iter().find(|attribute| attribute.path().is_ident("probe") || attribute.path().is_ident("event")) {
        Some(attribute) => Err(Error::new_spanned(attribute, "this goes on the struct; a field has `#[expr(\"…\")]`")),
        None => Ok(()),
    }
}

/// Whether the text may name a probe, an event, a binding, a field or a kfunc.
pub fn check_identifier(text: &str, span: Span) -> Result<()> {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Error::new(span, "a name is made of letters, digits and `_`, without a digit first"));
    }
    if text.len() > MAX_NAME {
        return Err(Error::new(span, format!("a name has at most {MAX_NAME} bytes")));
    }
    Ok(())
}

fn probe(attribute: &Attribute) -> Result<ProbeAttribute> {
    let span = attribute.path().get_ident().map_or_else(Span::call_site, Ident::span);
    let mut probe = ProbeAttribute { span, name: None, attach: Vec::new(), kfuncs: Vec::new(), steps: Vec::new() };
    attribute.parse_nested_meta(|meta| {
        if meta.path.is_ident("attach") {
            probe.attach.extend(texts(&meta, MAX_ATTACH, "an attach point")?);
        } else if meta.path.is_ident("kfuncs") {
            // Of a kfunc that a kernel may lack, `?` stands behind the name.
            let kfuncs = texts(&meta, MAX_NAME + 1, "the name of a kfunc")?;
            for kfunc in &kfuncs {
                let text = kfunc.value();
                check_identifier(text.strip_suffix('?').unwrap_or(&text), kfunc.span())?;
            }
            probe.kfuncs.extend(kfuncs);
        } else if meta.path.is_ident("name") {
            set_once(&mut probe.name, &meta, identifier(meta.value()?.parse()?)?)?;
        } else if meta.path.is_ident("when") {
            let condition = bounded(meta.value()?.parse()?, MAX_EXPRESSION, "an expression")?;
            probe.steps.push(StepAttribute::When(condition));
        } else if meta.path.is_ident("bind") {
            probe.steps.extend(bindings(&meta)?);
        } else {
            return Err(meta
                .error("unknown attribute: `probe` has `attach`, `name`, `kfuncs`, `when` and `bind(name = \"…\")`"));
        }
        Ok(())
    })?;
    if probe.attach.is_empty() {
        let message = "the probe has no attach point: add `attach = \"tracepoint:SYSTEM:NAME\"` or `attach = \"rawtracepoint:NAME\"`";
        return Err(Error::new(span, message));
    }
    Ok(probe)
}

/// What follows `attach` or `kfuncs`: `= "…"` or `= ["…", …]`, each of so many bytes at most.
fn texts(meta: &ParseNestedMeta<'_>, most: usize, what: &str) -> Result<Vec<LitStr>> {
    let value = meta.value()?;
    let texts: Vec<LitStr> = if value.peek(token::Bracket) {
        let list;
        bracketed!(list in value);
        Punctuated::<LitStr, Token![,]>::parse_terminated(&list)?.into_iter().collect()
    } else {
        vec![value.parse()?]
    };
    texts.into_iter().map(|text| bounded(text, most, what)).collect()
}

/// `bind(name = "…", …)`.
fn bindings(meta: &ParseNestedMeta<'_>) -> Result<Vec<StepAttribute>> {
    if !meta.input.peek(token::Paren) {
        return Err(meta.error("write a binding as `bind(name = \"…\")`"));
    }
    let list;
    parenthesized!(list in meta.input);
    let mut bindings = Vec::new();
    while !list.is_empty() {
        let name: Ident = list.parse()?;
        check_identifier(&name.to_string(), name.span())?;
        list.parse::<Token![=]>()?;
        bindings.push(StepAttribute::Bind(name, bounded(list.parse()?, MAX_EXPRESSION, "an expression")?));
        if !list.is_empty() {
            list.parse::<Token![,]>()?;
        }
    }
    Ok(bindings)
}

fn set_once(slot: &mut Option<LitStr>, meta: &ParseNestedMeta<'_>, value: LitStr) -> Result<()> {
    match slot.replace(value) {
        Some(_) => Err(meta.error("this is given twice")),
        None => Ok(()),
    }
}

fn identifier(text: LitStr) -> Result<LitStr> {
    check_identifier(&text.value(), text.span())?;
    Ok(text)
}

fn bounded(text: LitStr, most: usize, what: &str) -> Result<LitStr> {
    match text.value().len() {
        0 => Err(Error::new(text.span(), format!("{what} is not empty"))),
        length if length > most => Err(Error::new(text.span(), format!("{what} has at most {most} bytes"))),
        _ => Ok(text),
    }
}
