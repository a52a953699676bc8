//! What users set and watch stands in the pages for them: the keys of the configuration, and the
//! instruments of the catalogue.

use std::collections::BTreeSet;

use interline::observability::metrics::{CATALOGUE, InstrumentKind};
use syn::visit::{self, Visit};

use crate::source::{Crate, SourceFile};

/// The getters of a section.
const GETTERS: &[&str] = &[
    "bool",
    "choice",
    "duration",
    "float",
    "integer",
    "nonzero_duration",
    "secret",
    "section",
    "size",
    "string",
    "strings",
];

/// The keys that the code reads and the page of the configuration does not name, and the other way
/// round.
pub(crate) fn keys(code: &Crate, page: &str) -> Vec<String> {
    let mut read = BTreeSet::new();
    for file in code.files.iter().filter(|file| reads_sections(file)) {
        let mut keys = Keys(&mut read);
        keys.visit_file(&file.syntax);
    }
    let named = named(page);
    let lacking = read
        .iter()
        .filter(|key| !named.all.contains(*key))
        .map(|key| format!("docs/configuration.md does not name the key `{key}`"));
    let stale = named
        .keys
        .iter()
        .filter(|key| !read.contains(*key))
        .map(|key| format!("docs/configuration.md names the key `{key}`, which nothing reads"));
    lacking.chain(stale).collect()
}

/// The page of the instruments, as it has to be.
pub(crate) fn instruments() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Everything that the SDK counts. An app gives a `MetricsSink` with `App::metrics`; without one nothing is\n\
         counted. The labels are closed sets: nothing grows with the traffic. This page is made from the catalogue\n\
         `interline::observability::metrics::CATALOGUE`, and a test compares the two.\n\n\
         | name | kind | unit | labels | |\n\
         |---|---|---|---|---|\n",
    );
    for instrument in CATALOGUE {
        let kind = match instrument.kind {
            InstrumentKind::Counter => "counter",
            InstrumentKind::Gauge => "gauge",
            _ => "histogram",
        };
        let labels: Vec<_> = instrument
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        page.push_str(&format!(
            "| `{}` | {kind} | `{}` | {} | {} |\n",
            instrument.name,
            instrument.unit,
            labels.join(", "),
            instrument.description.trim()
        ));
    }
    page
}

/// The words that a page sets in code, and the keys of its tables.
#[derive(Default)]
struct Named {
    all: BTreeSet<String>,
    keys: BTreeSet<String>,
}

fn named(page: &str) -> Named {
    let mut named = Named::default();
    for line in page.lines() {
        let first = line.strip_prefix("| `").map(|_| line.split(" | ").next());
        for span in line.split('`').skip(1).step_by(2) {
            let words = span.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            named.all.extend(words.map(str::to_owned));
        }
        for span in first
            .flatten()
            .unwrap_or_default()
            .split('`')
            .skip(1)
            .step_by(2)
        {
            // `routes."PATTERN"` and `methods.NAME` end in what the user chooses.
            let last = span.rsplit('.').find(|word| is_key(word));
            named.keys.extend(last.map(str::to_owned));
        }
    }
    named
}

fn is_key(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_lowercase())
        && word
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
}

/// Whether a file reads the configuration of users: that of tests is set by the program.
fn reads_sections(file: &SourceFile) -> bool {
    let room = file.module.first().map(String::as_str);
    !matches!(room, Some("config" | "testing"))
}

/// The keys that a file asks sections for.
struct Keys<'a>(&'a mut BTreeSet<String>);

impl Keys<'_> {
    fn take(&mut self, argument: Option<&syn::Expr>) {
        if let Some(syn::Expr::Lit(literal)) = argument
            && let syn::Lit::Str(text) = &literal.lit
        {
            // `config.section("brokers.main")` opens one within another, by a name.
            let path = text.value();
            let first = path.split('.').next().filter(|key| is_key(key));
            self.0.extend(first.map(str::to_owned));
        }
    }
}

impl<'ast> Visit<'ast> for Keys<'_> {
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        // Of what also has such a method, only sections take the faults, or are made of the root.
        if GETTERS.contains(&call.method.to_string().as_str()) {
            self.take(call.args.first());
        }
        visit::visit_expr_method_call(self, call);
    }

    /// A key that is a constant, since faults name it too: `const KEY: &str = "rate";`.
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if item.ident == "KEY" {
            self.take(Some(&item.expr));
        }
    }

    /// A closure that reads several keys alike: `let mut millis = |key, ..| section.duration(key, ..)`.
    fn visit_block(&mut self, block: &'ast syn::Block) {
        let mut readers = Vec::new();
        for statement in &block.stmts {
            if let syn::Stmt::Local(local) = statement
                && let syn::Pat::Ident(name) = &local.pat
                && let Some(init) = &local.init
                && let syn::Expr::Closure(closure) = &*init.expr
                && passes_its_key_on(closure)
            {
                readers.push(name.ident.to_string());
            }
        }
        let mut calls = Calls {
            readers: &readers,
            keys: self,
        };
        if !readers.is_empty() {
            calls.visit_block(block);
        }
        visit::visit_block(self, block);
    }
}

struct Calls<'a, 'b> {
    readers: &'a [String],
    keys: &'a mut Keys<'b>,
}

impl<'ast> Visit<'ast> for Calls<'_, '_> {
    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(path) = &*call.func
            && let Some(name) = path.path.get_ident()
            && self.readers.contains(&name.to_string())
        {
            self.keys.take(call.args.first());
        }
        visit::visit_expr_call(self, call);
    }
}

/// Whether a closure asks a section for its first argument.
fn passes_its_key_on(closure: &syn::ExprClosure) -> bool {
    struct Looks {
        argument: Option<syn::Ident>,
        found: bool,
    }
    impl<'ast> Visit<'ast> for Looks {
        fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
            if GETTERS.contains(&call.method.to_string().as_str())
                && let Some(syn::Expr::Path(path)) = call.args.first()
                && path.path.get_ident() == self.argument.as_ref()
            {
                self.found = true;
            }
            visit::visit_expr_method_call(self, call);
        }
    }
    let argument = closure.inputs.first().and_then(|input| match input {
        syn::Pat::Ident(name) => Some(name.ident.clone()),
        syn::Pat::Type(typed) => match &*typed.pat {
            syn::Pat::Ident(name) => Some(name.ident.clone()),
            _ => None,
        },
        _ => None,
    });
    let mut looks = Looks {
        found: false,
        argument,
    };
    looks.visit_expr(&closure.body);
    looks.argument.is_some() && looks.found
}
