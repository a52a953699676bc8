//! The options of an attribute: each macro has a table of its keys, and everything that can be said
//! about keys (unknown, twice, together with another, of the wrong kind) comes from that table.

use std::time::Duration;

use proc_macro2::{Delimiter, Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::Parser;

use crate::diagnostics::{Errors, list, suggestion};
use crate::literals::{self, Flaw};

/// One key of a macro.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) conflicts: &'static [Conflict],
}

impl Key {
    pub(crate) const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            conflicts: &[],
        }
    }

    /// This key cannot stand beside those.
    pub(crate) const fn unless(mut self, conflicts: &'static [Conflict]) -> Self {
        self.conflicts = conflicts;
        self
    }
}

/// Another key (with that word as its value, if one is given) that excludes this one, and why.
#[derive(Debug)]
pub(crate) struct Conflict {
    pub(crate) key: &'static str,
    pub(crate) word: Option<&'static str>,
    pub(crate) why: &'static str,
}

/// What stands after a key.
#[derive(Debug)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A number with a fraction, of at least this.
    Decimal(f64),
    /// A duration as a string.
    Duration,
    /// Nothing: the key alone says it.
    Flag,
    /// Further keys in parentheses.
    Group(&'static [Key]),
    /// Further keys in parentheses, or one of these words.
    GroupOrWord(&'static [Key], &'static [&'static str]),
    /// An identifier of the user's choice.
    Ident,
    /// A field, by its name or number.
    Member,
    /// A name as a string.
    Name,
    /// A name as a string, or one of these words.
    NameOrWord(&'static [&'static str]),
    /// A whole number between these.
    Number(u64, u64),
    /// Pairs in parentheses, each `key = value`.
    Pairs,
    /// A path.
    Path,
    /// A rate as a string.
    Rate,
    /// A string.
    Text,
    /// A topic as a string.
    Topic,
    /// A topic as a string, or the path of a constant.
    TopicOrPath,
    /// A duration as a string, or a field.
    DurationOrMember,
    /// Nothing, or further keys in parentheses.
    FlagOrGroup(&'static [Key]),
    /// One of these words.
    Word(&'static [&'static str]),
}

/// What was written after a key.
#[derive(Clone)]
pub(crate) enum Value {
    Bool(bool),
    Decimal(f64),
    Duration(Duration),
    Flag,
    Group(Args),
    Ident(Ident),
    Member(syn::Member),
    Number(u64),
    Pairs(Vec<Pair>),
    Path(syn::Path),
    Rate(u32, Duration),
    Text(String),
    /// A topic with the names of its placeholders.
    Topic(String, Vec<String>),
    Word(&'static str),
}

/// `key = value` of a [`Kind::Pairs`].
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) key: syn::Lit,
    pub(crate) value: TokenStream,
}

/// One key with its value.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: Ident,
    pub(crate) value: Value,
    /// The tokens of the value; those of the key, if it has none.
    pub(crate) tokens: TokenStream,
}

/// The options of one attribute.
#[derive(Clone, Default)]
pub(crate) struct Args {
    entries: Vec<Entry>,
    /// Keys that were written, also where the value was wrong.
    written: Vec<Ident>,
}

impl Args {
    /// Reads `tokens` by the table `keys` of the attribute `of`; every mistake is noted.
    pub(crate) fn parse(
        tokens: TokenStream,
        keys: &'static [Key],
        of: &str,
        errors: &mut Errors,
    ) -> Self {
        let mut args = Self::default();
        for item in split_at_commas(tokens) {
            args.read(item, keys, of, errors);
        }
        args.check_conflicts(keys, errors);
        args
    }

    /// Adds the options of a second attribute of the same name.
    pub(crate) fn merge(&mut self, other: Self, errors: &mut Errors) {
        for key in &other.written {
            if self.has(&key.to_string()) {
                twice(key, errors);
            }
        }
        self.written.extend(other.written);
        self.entries.extend(other.entries);
    }

    fn read(&mut self, item: Vec<TokenTree>, keys: &'static [Key], of: &str, errors: &mut Errors) {
        let whole: TokenStream = item.iter().cloned().collect();
        let mut rest = item.into_iter();
        let Some(TokenTree::Ident(name)) = rest.next() else {
            let example = keys.first().map_or("name", |key| key.name);
            errors.at(
                whole,
                format!("expected an option of `{of}`"),
                format!(
                    "options look like `{example} = ..`; there are {}",
                    names(keys)
                ),
            );
            return;
        };
        let text = name.to_string();
        let Some(key) = keys.iter().find(|key| key.name == text) else {
            let help = match suggestion(&text, keys.iter().map(|key| key.name)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", names(keys)),
            };
            errors.at(&name, format!("unknown option `{text}` for `{of}`"), help);
            return;
        };
        if self.has(key.name) {
            twice(&name, errors);
            return;
        }
        self.written.push(name.clone());
        let rest: Vec<_> = rest.collect();
        let Some(form) = Form::of(&rest) else {
            errors.at(
                &whole,
                format!("`{text}` is not complete"),
                key.kind.example(key.name),
            );
            return;
        };
        let tokens = match &form {
            Form::Nothing => name.to_token_stream(),
            Form::Value(value) => value.clone(),
            Form::Group(_) => rest.iter().cloned().collect(),
        };
        if let Some(value) = key.read(form, &name, errors) {
            self.entries.push(Entry {
                key: name,
                value,
                tokens,
            });
        }
    }

    fn check_conflicts(&self, keys: &'static [Key], errors: &mut Errors) {
        for entry in &self.entries {
            let Some(key) = keys.iter().find(|key| entry.key == key.name) else {
                continue;
            };
            for conflict in key.conflicts {
                let Some(other) = self.get(conflict.key) else {
                    continue;
                };
                let written = match (conflict.word, &other.value) {
                    (None, _) => conflict.key.to_owned(),
                    (Some(word), Value::Word(found)) if *found == word => {
                        format!("{} = {word}", conflict.key)
                    }
                    (Some(_), _) => continue,
                };
                errors.at(
                    &entry.key,
                    format!("`{}` cannot stand beside `{written}`", key.name),
                    conflict.why,
                );
            }
        }
    }

    /// Whether the key was written, rightly or wrongly.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.written.iter().any(|written| written == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match &self.get(key)?.value {
            Value::Text(text) | Value::Topic(text, _) => Some(text.clone()),
            _ => None,
        }
    }

    pub(crate) fn word(&self, key: &str) -> Option<&'static str> {
        match self.get(key)?.value {
            Value::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        match self.get(key)?.value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn decimal(&self, key: &str) -> Option<f64> {
        match self.get(key)?.value {
            Value::Decimal(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn duration(&self, key: &str) -> Option<Duration> {
        match self.get(key)?.value {
            Value::Duration(duration) => Some(duration),
            _ => None,
        }
    }

    pub(crate) fn ident(&self, key: &str) -> Option<&Ident> {
        match &self.get(key)?.value {
            Value::Ident(ident) => Some(ident),
            _ => None,
        }
    }

    pub(crate) fn member(&self, key: &str) -> Option<&syn::Member> {
        match &self.get(key)?.value {
            Value::Member(member) => Some(member),
            _ => None,
        }
    }

    pub(crate) fn path(&self, key: &str) -> Option<&syn::Path> {
        match &self.get(key)?.value {
            Value::Path(path) => Some(path),
            _ => None,
        }
    }

    pub(crate) fn group(&self, key: &str) -> Option<&Args> {
        match &self.get(key)?.value {
            Value::Group(args) => Some(args),
            _ => None,
        }
    }

    pub(crate) fn pairs(&self, key: &str) -> &[Pair] {
        match self.get(key).map(|entry| &entry.value) {
            Some(Value::Pairs(pairs)) => pairs,
            _ => &[],
        }
    }

    /// Where a key was written, for a mistake that its value is part of.
    pub(crate) fn span(&self, key: &str) -> Span {
        self.written
            .iter()
            .find(|written| *written == key)
            .map_or_else(Span::call_site, Ident::span)
    }
}

/// How a key was written.
enum Form {
    Nothing,
    Value(TokenStream),
    Group(TokenStream),
}

impl Form {
    fn of(rest: &[TokenTree]) -> Option<Self> {
        match rest {
            [] => Some(Self::Nothing),
            [TokenTree::Group(group)] if group.delimiter() == Delimiter::Parenthesis => {
                Some(Self::Group(group.stream()))
            }
            [TokenTree::Punct(equals), value @ ..] if equals.as_char() == '=' => {
                if value.is_empty() {
                    return None;
                }
                Some(Self::Value(value.iter().cloned().collect()))
            }
            _ => None,
        }
    }
}

impl Key {
    fn read(&self, form: Form, name: &Ident, errors: &mut Errors) -> Option<Value> {
        match (&self.kind, form) {
            (Kind::Flag | Kind::FlagOrGroup(_), Form::Nothing) => Some(Value::Flag),
            (
                Kind::Group(keys) | Kind::GroupOrWord(keys, _) | Kind::FlagOrGroup(keys),
                Form::Group(tokens),
            ) => {
                if tokens.is_empty() {
                    let what = format!("`{}()` says nothing", self.name);
                    errors.at(name, what, self.kind.example(self.name));
                    return None;
                }
                let args = Args::parse(tokens, keys, self.name, errors);
                Some(Value::Group(args))
            }
            (Kind::Pairs, Form::Group(tokens)) => self.read_pairs(tokens, errors),
            (
                Kind::Group(_) | Kind::Pairs | Kind::Flag | Kind::FlagOrGroup(_),
                Form::Value(value),
            ) => {
                let what = format!("`{}` takes no `=`", self.name);
                errors.at(value, what, self.kind.example(self.name));
                None
            }
            (_, Form::Value(value)) => match self.kind.read(&value) {
                Ok(value) => Some(value),
                Err(flaw) => {
                    errors.at(value, flaw.what, flaw.help);
                    None
                }
            },
            (_, Form::Nothing | Form::Group(_)) => {
                let what = format!("`{}` needs a value", self.name);
                errors.at(name, what, self.kind.example(self.name));
                None
            }
        }
    }

    fn read_pairs(&self, tokens: TokenStream, errors: &mut Errors) -> Option<Value> {
        let mut pairs = Vec::new();
        for item in split_at_commas(tokens) {
            let whole: TokenStream = item.iter().cloned().collect();
            let pair = match item.split_first() {
                Some((TokenTree::Literal(key), rest)) => match Form::of(rest) {
                    Some(Form::Value(value)) => Some(Pair {
                        key: syn::Lit::new(key.clone()),
                        value,
                    }),
                    _ => None,
                },
                _ => None,
            };
            match pair {
                Some(pair) => pairs.push(pair),
                None => {
                    let what = format!("expected a pair of `{}`", self.name);
                    errors.at(whole, what, self.kind.example(self.name));
                }
            }
        }
        Some(Value::Pairs(pairs))
    }
}

impl Kind {
    fn read(&self, value: &TokenStream) -> Result<Value, Flaw> {
        match self {
            Self::Bool => parse::<syn::LitBool>(value)
                .map(|literal| Value::Bool(literal.value))
                .ok_or_else(|| flaw(value, "`true` or `false`")),
            Self::Decimal(min) => {
                let number = match parse::<syn::Lit>(value) {
                    Some(syn::Lit::Float(literal)) => literal.base10_parse::<f64>().ok(),
                    Some(syn::Lit::Int(literal)) => literal.base10_parse::<f64>().ok(),
                    _ => None,
                };
                number
                    .filter(|number| number.is_finite() && number >= min)
                    .map(Value::Decimal)
                    .ok_or_else(|| flaw(value, &format!("a number of at least {min}")))
            }
            Self::Duration => {
                let text = string(value, "a duration such as \"10s\"")?;
                literals::duration(&text).map(Value::Duration)
            }
            Self::DurationOrMember => match parse::<syn::LitStr>(value) {
                Some(literal) => literals::duration(&literal.value()).map(Value::Duration),
                None => parse::<syn::Member>(value)
                    .map(Value::Member)
                    .ok_or_else(|| flaw(value, "a duration such as \"5s\", or a field")),
            },
            Self::Rate => {
                let text = string(value, "a rate such as \"100/s\"")?;
                literals::rate(&text).map(|(count, per)| Value::Rate(count, per))
            }
            Self::Name => {
                let text = string(value, "a name as a string, such as \"billing\"")?;
                literals::name(&text).map(|()| Value::Text(text))
            }
            Self::NameOrWord(words) => match parse::<syn::LitStr>(value) {
                Some(literal) => {
                    let text = literal.value();
                    literals::name(&text).map(|()| Value::Text(text))
                }
                None => word(value, words, " or a name as a string"),
            },
            Self::Number(min, max) => parse::<syn::LitInt>(value)
                .and_then(|literal| literal.base10_parse::<u64>().ok())
                .filter(|number| (min..=max).contains(&number))
                .map(Value::Number)
                .ok_or_else(|| flaw(value, &format!("a whole number from {min} to {max}"))),
            Self::Ident => parse::<Ident>(value)
                .map(Value::Ident)
                .ok_or_else(|| flaw(value, "an identifier")),
            Self::Member => parse::<syn::Member>(value)
                .map(Value::Member)
                .ok_or_else(|| flaw(value, "the name of a field")),
            Self::Path => path(value).ok_or_else(|| flaw(value, "a path")),
            Self::Text => string(value, "a string").map(Value::Text),
            Self::Topic => topic(&string(value, "a topic as a string")?),
            Self::TopicOrPath => match parse::<syn::LitStr>(value) {
                Some(literal) => topic(&literal.value()),
                None => path(value)
                    .ok_or_else(|| flaw(value, "a topic as a string, or the path of a constant")),
            },
            Self::Word(words) | Self::GroupOrWord(_, words) => word(value, words, ""),
            Self::Flag | Self::FlagOrGroup(_) | Self::Group(_) | Self::Pairs => {
                Err(flaw(value, "nothing"))
            }
        }
    }

    /// What to write for a key of this kind.
    fn example(&self, key: &str) -> String {
        let value = match self {
            Self::Bool => "true",
            Self::Decimal(_) => "2.0",
            Self::Duration | Self::DurationOrMember => "\"10s\"",
            Self::Flag => return format!("write `{key}`"),
            Self::Group(keys) | Self::FlagOrGroup(keys) | Self::GroupOrWord(keys, _) => {
                return format!("write `{key}(..)` with {}", names(keys));
            }
            Self::Ident => "Name",
            Self::Member => "field",
            Self::Name | Self::NameOrWord(_) | Self::Text => "\"..\"",
            Self::Number(min, _) => return format!("write for example `{key} = {}`", min.max(&1)),
            Self::Pairs => return format!("write for example `{key}(\"x-name\" = \"value\")`"),
            Self::Path => "::some::path",
            Self::Rate => "\"100/s\"",
            Self::Topic | Self::TopicOrPath => "\"orders.placed\"",
            Self::Word(words) => words.first().copied().unwrap_or(".."),
        };
        format!("write for example `{key} = {value}`")
    }
}

fn topic(text: &str) -> Result<Value, Flaw> {
    literals::topic(text).map(|fields| Value::Topic(text.to_owned(), fields))
}

fn word(value: &TokenStream, words: &'static [&'static str], or: &str) -> Result<Value, Flaw> {
    let written = parse::<Ident>(value).map(|ident| ident.to_string());
    let written = written.unwrap_or_else(|| value.to_string());
    if let Some(word) = words.iter().find(|word| **word == written) {
        return Ok(Value::Word(word));
    }
    let known = list(words.iter().copied());
    let help = match suggestion(&written, words.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("expected {known}{or}"),
    };
    Err(Flaw {
        what: format!("`{written}` is not possible here"),
        help,
    })
}

fn string(value: &TokenStream, wanted: &str) -> Result<String, Flaw> {
    parse::<syn::LitStr>(value)
        .map(|literal| literal.value())
        .ok_or_else(|| flaw(value, wanted))
}

fn path(value: &TokenStream) -> Option<Value> {
    let path = syn::Path::parse_mod_style.parse2(value.clone()).ok()?;
    Some(Value::Path(path))
}

fn flaw(value: &TokenStream, wanted: &str) -> Flaw {
    Flaw {
        what: format!("`{value}` is not possible here"),
        help: format!("expected {wanted}"),
    }
}

fn parse<T: syn::parse::Parse>(value: &TokenStream) -> Option<T> {
    syn::parse2(value.clone()).ok()
}

fn twice(key: &Ident, errors: &mut Errors) {
    errors.at(key, format!("`{key}` is written twice"), "write it once");
}

fn names(keys: &[Key]) -> String {
    list(keys.iter().map(|key| key.name))
}

/// The items between commas; empty ones are left out.
pub(crate) fn split_at_commas(tokens: TokenStream) -> Vec<Vec<TokenTree>> {
    let mut items = vec![Vec::new()];
    for token in tokens {
        match token {
            TokenTree::Punct(comma) if comma.as_char() == ',' => items.push(Vec::new()),
            other => {
                if let Some(item) = items.last_mut() {
                    item.push(other);
                }
            }
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    const KEYS: &[Key] = &[
        Key::new("name", Kind::Name),
        Key::new("timeout", Kind::Duration).unless(&[Conflict {
            key: "ack",
            word: Some("manual"),
            why: "nobody waits",
        }]),
        Key::new("ack", Kind::Word(&["after", "manual"])),
        Key::new(
            "retry",
            Kind::GroupOrWord(&[Key::new("attempts", Kind::Number(1, 9))], &["none"]),
        ),
        Key::new("arguments", Kind::Pairs),
        Key::new("crate", Kind::Path),
    ];

    fn read(tokens: TokenStream) -> (Args, Vec<String>) {
        let mut errors = Errors::default();
        let args = Args::parse(tokens, KEYS, "#[subscriber]", &mut errors);
        (args, errors.texts())
    }

    #[test]
    fn values_are_read_by_their_kind() {
        let (args, errors) = read(quote! {
            name = "a.b", timeout = "2s", ack = after, retry(attempts = 3),
            arguments("x-a" = 1, "x-b" = "c"), crate = ::x::y,
        });
        assert_eq!(errors, [""; 0]);
        assert_eq!(args.text("name").as_deref(), Some("a.b"));
        assert_eq!(args.duration("timeout"), Some(Duration::from_secs(2)));
        assert_eq!(args.word("ack"), Some("after"));
        assert_eq!(
            args.group("retry")
                .and_then(|group| group.number("attempts")),
            Some(3)
        );
        assert_eq!(args.pairs("arguments").len(), 2);
        assert!(args.path("crate").is_some());
        let (args, errors) = read(quote!(retry = none));
        assert_eq!((args.word("retry"), errors.len()), (Some("none"), 0));
    }

    #[test]
    fn every_mistake_is_reported_with_a_way_out() {
        let (_, errors) = read(quote! {
            nam = "x", wholly = 1, name = 3, ack = mannual, timeout, retry(attempts = 0),
            retry = none, = 4, arguments(x = 1), crate =
        });
        assert_eq!(
            errors,
            [
                "unknown option `nam` for `#[subscriber]`\n  help: did you mean `name`?",
                "unknown option `wholly` for `#[subscriber]`\n  help: there are `name`, `timeout`, `ack`, `retry`, `arguments` and `crate`",
                "`3` is not possible here\n  help: expected a name as a string, such as \"billing\"",
                "`mannual` is not possible here\n  help: did you mean `manual`?",
                "`timeout` needs a value\n  help: write for example `timeout = \"10s\"`",
                "`0` is not possible here\n  help: expected a whole number from 1 to 9",
                "`retry` is written twice\n  help: write it once",
                "expected an option of `#[subscriber]`\n  help: options look like `name = ..`; there are `name`, `timeout`, `ack`, `retry`, `arguments` and `crate`",
                "expected a pair of `arguments`\n  help: write for example `arguments(\"x-name\" = \"value\")`",
                "`crate` is not complete\n  help: write for example `crate = ::some::path`",
            ]
        );
    }

    #[test]
    fn conflicts_come_from_the_table() {
        let (_, errors) = read(quote!(ack = manual, timeout = "1s"));
        assert_eq!(
            errors,
            ["`timeout` cannot stand beside `ack = manual`\n  help: nobody waits"]
        );
        let (_, errors) = read(quote!(ack = after, timeout = "1s"));
        assert_eq!(errors, [""; 0]);
    }
}
