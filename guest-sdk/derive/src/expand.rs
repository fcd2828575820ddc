//! The trait's implementation, made of the struct or enum and its attributes.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Data, DataEnum, DataStruct, DeriveInput, Error, Field, Fields, GenericParam, Ident, Lifetime, LitStr, Result, Type,
};

use crate::attributes::{self, ProbeAttribute, StepAttribute};

/// Fields of an event at most.
const MAX_FIELDS: usize = 64;

pub fn event(input: &DeriveInput) -> Result<TokenStream> {
    match &input.data {
        Data::Struct(data) => event_struct(input, data),
        Data::Enum(data) => event_enum(input, data),
        Data::Union(data) => Err(Error::new(data.union_token.span, "an event is a struct, or an enum of events")),
    }
}

fn event_struct(input: &DeriveInput, data: &DataStruct) -> Result<TokenStream> {
    let probes = named_probes(input)?;
    let event = match attributes::event_name(&input.attrs)? {
        Some(name) => name.value(),
        None => snake_case(&input.ident),
    };
    let fields = named_fields(data)?;
    let lifetime = lifetime(input)?;

    let specs = field_specs(&fields, &lifetime)?;
    let probe_specs = probes.iter().map(|(name, probe)| probe_spec(name, &event, probe));
    let count = probes.len();
    let cells: Vec<Ident> = (0..fields.len()).map(|index| format_ident!("cell{index}")).collect();
    let reads = fields.iter().zip(&cells).map(|(field, cell)| {
        let (name, ty) = (&field.ident, &field.ty);
        quote_spanned!(ty.span()=> #name: <#ty as ::porthole_guest::Field<#lifetime>>::read(record, #cell))
    });
    let columns = fields.iter().map(|field| {
        let (name, ty) = (&field.ident, &field.ty);
        let text = field_name(field);
        quote_spanned!(ty.span()=> (#text, <#ty as ::porthole_guest::Field<#lifetime>>::value(&self.#name)))
    });

    Ok(implementation(
        input,
        &lifetime,
        quote! {
            const PROBES: usize = #count;

            fn probes() -> ::std::vec::Vec<::porthole_guest::ProbeSpec> {
                let fields = const { &[#(#specs),*] };
                ::std::vec![#(#probe_specs),*]
            }

            fn decode(
                _probe: usize,
                cells: &[::porthole_guest::Cell],
                record: ::porthole_guest::Record<#lifetime>,
            ) -> ::core::option::Option<Self> {
                let [#(#cells),*] = *cells else { return ::core::option::Option::None };
                let _ = record;
                ::core::option::Option::Some(Self { #(#reads),* })
            }

            fn name(&self) -> &'static str {
                #event
            }

            fn columns(&self) -> ::std::vec::Vec<(&'static str, ::porthole_guest::Value<'_>)> {
                ::std::vec![#(#columns),*]
            }
        },
    ))
}

fn event_enum(input: &DeriveInput, data: &DataEnum) -> Result<TokenStream> {
    if let Some(attribute) = input.attrs.iter().find(|a| a.path().is_ident("probe") || a.path().is_ident("event")) {
        return Err(Error::new_spanned(attribute, "this goes on the structs that the enum's variants hold"));
    }
    if data.variants.is_empty() {
        return Err(Error::new_spanned(&input.ident, "an enum of events has at least one variant"));
    }
    let lifetime = lifetime(input)?;
    let variants = data
        .variants
        .iter()
        .map(|variant| Ok((&variant.ident, held_type(&variant.fields, &variant.ident)?)))
        .collect::<Result<Vec<(&Ident, &Type)>>>()?;

    let event = |ty: &Type| quote_spanned!(ty.span()=> <#ty as ::porthole_guest::Event<#lifetime>>);
    let counts = variants.iter().map(|(_, ty)| {
        let event = event(ty);
        quote!(#event::PROBES)
    });
    let probes = variants.iter().map(|(_, ty)| {
        let event = event(ty);
        quote!(probes.extend(#event::probes());)
    });
    let decode = variants.iter().map(|(variant, ty)| {
        let event = event(ty);
        quote! {
            if probe < #event::PROBES {
                return #event::decode(probe, cells, record).map(Self::#variant);
            }
            let probe = probe - #event::PROBES;
        }
    });
    let names = variants.iter().map(|(variant, ty)| {
        let event = event(ty);
        quote!(Self::#variant(event) => #event::name(event))
    });
    let columns = variants.iter().map(|(variant, ty)| {
        let event = event(ty);
        quote!(Self::#variant(event) => #event::columns(event))
    });

    Ok(implementation(
        input,
        &lifetime,
        quote! {
            const PROBES: usize = 0 #(+ #counts)*;

            fn probes() -> ::std::vec::Vec<::porthole_guest::ProbeSpec> {
                let mut probes = ::std::vec::Vec::with_capacity(Self::PROBES);
                #(#probes)*
                probes
            }

            fn decode(
                probe: usize,
                cells: &[::porthole_guest::Cell],
                record: ::porthole_guest::Record<#lifetime>,
            ) -> ::core::option::Option<Self> {
                #(#decode)*
                let _ = probe;
                ::core::option::Option::None
            }

            fn name(&self) -> &'static str {
                match self { #(#names),* }
            }

            fn columns(&self) -> ::std::vec::Vec<(&'static str, ::porthole_guest::Value<'_>)> {
                match self { #(#columns),* }
            }
        },
    ))
}

fn implementation(input: &DeriveInput, lifetime: &Lifetime, items: TokenStream) -> TokenStream {
    let ident = &input.ident;
    let arguments = if input.generics.params.is_empty() { quote!() } else { quote!(<#lifetime>) };
    quote! {
        #[automatically_derived]
        impl<#lifetime> ::porthole_guest::Event<#lifetime> for #ident #arguments {
            #items
        }
    }
}

/// The probes, with their names: given, or the struct's.
fn named_probes(input: &DeriveInput) -> Result<Vec<(String, ProbeAttribute)>> {
    let probes = attributes::probes(&input.attrs)?;
    if probes.is_empty() {
        let message = "no probe sends this event: add `#[probe(attach = \"tracepoint:SYSTEM:NAME\")]`";
        return Err(Error::new_spanned(&input.ident, message));
    }
    let mut named: Vec<(String, ProbeAttribute)> = Vec::with_capacity(probes.len());
    for probe in probes {
        let name = probe.name.as_ref().map_or_else(|| snake_case(&input.ident), LitStr::value);
        if named.iter().any(|(other, _)| *other == name) {
            let span = probe.name.as_ref().map_or(probe.span, LitStr::span);
            let message = format!("another probe of this event is named `{name}` too: add or change `name = \"…\"`");
            return Err(Error::new(span, message));
        }
        named.push((name, probe));
    }
    Ok(named)
}

fn named_fields(data: &DataStruct) -> Result<Vec<&Field>> {
    let fields: Vec<&Field> = match &data.fields {
        Fields::Named(fields) => fields.named.iter().collect(),
        Fields::Unit => Vec::new(),
        Fields::Unnamed(fields) => return Err(Error::new_spanned(fields, "an event's fields have names")),
    };
    match fields.get(MAX_FIELDS) {
        Some(field) => Err(Error::new_spanned(field, format!("an event has at most {MAX_FIELDS} fields"))),
        None => Ok(fields),
    }
}

/// The one type that an enum's variant holds.
fn held_type<'f>(fields: &'f Fields, variant: &Ident) -> Result<&'f Type> {
    match fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Ok(&fields.unnamed[0].ty),
        _ => Err(Error::new_spanned(variant, format!("a variant holds one event: `{variant}(SomeEvent)`"))),
    }
}

/// The lifetime of the record that the event is decoded from: the type's own where it has one.
fn lifetime(input: &DeriveInput) -> Result<Lifetime> {
    let mut lifetime = None;
    for param in &input.generics.params {
        match param {
            GenericParam::Lifetime(param) if lifetime.is_none() => lifetime = Some(param.lifetime.clone()),
            GenericParam::Lifetime(_) => {
                return Err(Error::new_spanned(param, "an event has at most one lifetime: the record's"));
            }
            _ => return Err(Error::new_spanned(param, "an event is not generic, but for one lifetime")),
        }
    }
    Ok(lifetime.unwrap_or_else(|| Lifetime::new("'record", input.ident.span())))
}

fn field_specs(fields: &[&Field], lifetime: &Lifetime) -> Result<Vec<TokenStream>> {
    let spec = |field: &&Field| {
        attributes::refuse_on_field(&field.attrs)?;
        let name = field_name(field);
        attributes::check_identifier(&name, field.ident.span())?;
        let expression = attributes::expression(&field.attrs)?.map_or_else(|| name.clone(), |text| text.value());
        let ty = &field.ty;
        Ok(quote_spanned! {ty.span()=>
            ::porthole_guest::FieldSpec {
                name: #name,
                expression: #expression,
                kind: <#ty as ::porthole_guest::Field<#lifetime>>::KIND,
            }
        })
    };
    fields.iter().map(spec).collect()
}

fn probe_spec(name: &str, event: &str, probe: &ProbeAttribute) -> TokenStream {
    let attach = &probe.attach;
    let kfuncs = probe.kfuncs.iter().map(|kfunc| {
        let text = kfunc.value();
        let (name, required) = text.strip_suffix('?').map_or((text.as_str(), true), |name| (name, false));
        quote!(::porthole_guest::KfuncSpec { name: #name, required: #required })
    });
    let steps = probe.steps.iter().map(|step| match step {
        StepAttribute::When(condition) => quote!(::porthole_guest::StepSpec::When(#condition)),
        StepAttribute::Bind(name, value) => {
            let name = name.to_string();
            quote!(::porthole_guest::StepSpec::Bind { name: #name, value: #value })
        }
    });
    quote! {
        ::porthole_guest::ProbeSpec {
            name: #name,
            event: #event,
            attach: &[#(#attach),*],
            kfuncs: &[#(#kfuncs),*],
            steps: &[#(#steps),*],
            fields,
        }
    }
}

/// The field's name in the event: `type` for `r#type`.
fn field_name(field: &Field) -> String {
    field.ident.as_ref().map(|ident| ident.unraw().to_string()).unwrap_or_default()
}

/// `OpenAt2` to `open_at2`.
fn snake_case(ident: &Ident) -> String {
    let mut name = String::new();
    let mut previous = '_';
    for c in ident.unraw().to_string().chars() {
        if c.is_uppercase() && previous != '_' && !previous.is_uppercase() {
            name.push('_');
        }
        name.extend(c.to_lowercase());
        previous = c;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(source: &str) -> String {
        let input = syn::parse_str(source).expect("a test's source parses");
        event(&input).expect_err("a test's source is wrong").to_string()
    }

    #[test]
    fn faults_are_told_with_what_would_work() {
        let told = [
            ("struct E { pid: u32 }", "no probe sends this event: add `#[probe(attach"),
            ("#[probe(when = \"pid\")] struct E { pid: u32 }", "the probe has no attach point: add `attach ="),
            ("#[probe(attach = [])] struct E { pid: u32 }", "the probe has no attach point"),
            ("#[probe(attach = \"\")] struct E { pid: u32 }", "an attach point is not empty"),
            ("#[probe(attch = \"a:b\")] struct E { pid: u32 }", "unknown attribute: `probe` has `attach`"),
            (
                "#[probe(attach = \"a:b\", bind = \"x\")] struct E { pid: u32 }",
                "write a binding as `bind(name = \"…\")`",
            ),
            ("#[probe(attach = \"a:b\", name = \"1\")] struct E { pid: u32 }", "a name is made of letters"),
            ("#[probe(attach = \"a:b\", kfuncs = \"a b\")] struct E { pid: u32 }", "a name is made of letters"),
            ("#[probe(attach = \"a:b\", kfuncs = \"a??\")] struct E { pid: u32 }", "a name is made of letters"),
            ("#[probe(attach = \"a:b\", kfuncs = [\"\"])] struct E { pid: u32 }", "the name of a kfunc is not empty"),
            ("#[probe(attach = \"a:b\", name = \"a\", name = \"b\")] struct E { pid: u32 }", "this is given twice"),
            (
                "#[probe(attach = \"a:b\")] #[probe(attach = \"a:c\")] struct E {}",
                "another probe of this event is named `e` too",
            ),
            (
                "#[probe(attach = \"a:b\")] struct E { #[expr = \"x\"] pid: u32 }",
                "write the field's expression as `#[expr(\"…\")]`",
            ),
            ("#[probe(attach = \"a:b\")] struct E { #[probe(attach = \"x\")] pid: u32 }", "this goes on the struct"),
            ("#[probe(attach = \"a:b\")] struct E(u32);", "an event's fields have names"),
            ("#[probe(attach = \"a:b\")] struct E<T> { pid: T }", "an event is not generic"),
            ("#[probe(attach = \"a:b\")] enum E { A(A) }", "this goes on the structs that the enum's variants hold"),
            ("enum E { A { a: A } }", "a variant holds one event: `A(SomeEvent)`"),
            ("enum E {}", "an enum of events has at least one variant"),
            ("union E { a: u32 }", "an event is a struct, or an enum of events"),
        ];
        for (source, beginning) in told {
            let message = error(source);
            assert!(message.starts_with(beginning), "{source}\n  {message}");
        }
    }

    #[test]
    fn more_than_64_fields_are_refused() {
        let fields: String = (0..65).map(|i| format!("f{i}: u8,")).collect();
        assert_eq!(
            error(&format!("#[probe(attach = \"a:b\")] struct E {{ {fields} }}")),
            "an event has at most 64 fields"
        );
    }

    #[test]
    fn names_are_in_snake_case() {
        for (name, snake) in
            [("Create", "create"), ("OpenAt2", "open_at2"), ("TCPState", "tcpstate"), ("Already_so", "already_so")]
        {
            assert_eq!(snake_case(&format_ident!("{name}")), snake);
        }
    }
}
