//! The source of the crate as the rules look at it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The modules of the crate, and what its root re-exports.
#[derive(Default)]
pub(crate) struct Crate {
    pub(crate) files: Vec<SourceFile>,
    /// The path that a name of the crate root stands for.
    pub(crate) root_names: BTreeMap<String, Vec<String>>,
    /// Crates that the manifest lists, as code names them.
    pub(crate) dependencies: Vec<String>,
}

pub(crate) struct SourceFile {
    /// As an editor opens it.
    pub(crate) path: PathBuf,
    /// The module, without `crate`.
    pub(crate) module: Vec<String>,
    pub(crate) syntax: syn::File,
}

/// A path that code names, made absolute: `["crate", "config", "Section"]` or `["lapin", "Channel"]`.
pub(crate) struct Mention {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
}

impl Crate {
    /// Reads `runtime`; panics with the file and line of what does not parse.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut found = Self::default();
        let source = folder.join("src");
        found.read_folder(&source, &source);
        found.files.sort_by(|one, other| one.path.cmp(&other.path));
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        found.dependencies = dependencies(&manifest);
        found
    }

    /// A crate of snippets, each with its path below `src`.
    pub(crate) fn of_snippets(snippets: &[(&str, &str)]) -> Self {
        let mut made = Self::default();
        for (path, text) in snippets {
            made.add(Path::new(path), Path::new(path).to_owned(), text);
        }
        made.dependencies = ["lapin", "tokio", "bytes"].map(str::to_owned).to_vec();
        made
    }

    fn read_folder(&mut self, source: &Path, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.read_folder(source, &path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let below = path.strip_prefix(source).unwrap().to_owned();
                self.add(&below, Path::new("runtime/src").join(&below), &text);
            }
        }
    }

    fn add(&mut self, below: &Path, path: PathBuf, text: &str) {
        let mut module: Vec<String> = below
            .with_extension("")
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        if module
            .last()
            .is_some_and(|name| ["mod", "lib"].contains(&&**name))
        {
            module.pop();
        }
        // Tests may use whatever helps them.
        if module.last().is_some_and(|name| name == "tests") {
            return;
        }
        let mut syntax = syn::parse_file(text).unwrap_or_else(|error| {
            panic!("{}:{}: {error}", path.display(), error.span().start().line)
        });
        without_tests(&mut syntax.items);
        if module.is_empty() {
            for item in &syntax.items {
                if let syn::Item::Use(item) = item {
                    for (name, path, _) in leaves(&item.tree) {
                        self.root_names.insert(name, path);
                    }
                }
            }
        }
        self.files.push(SourceFile {
            path,
            module,
            syntax,
        });
    }

    /// Whether `module`, without `crate`, is a file or folder of the crate.
    pub(crate) fn has_module(&self, module: &[String]) -> bool {
        self.files
            .iter()
            .any(|file| file.module.starts_with(module))
    }

    /// Whether `name` is a crate that the manifest lists.
    pub(crate) fn depends_on(&self, name: &str) -> bool {
        self.dependencies
            .iter()
            .any(|dependency| dependency == name)
    }

    /// Everything that a file names, paths of the crate root resolved to where they lead.
    pub(crate) fn mentions(&self, file: &SourceFile) -> Vec<Mention> {
        let mut collector = Collector {
            module: file.module.clone(),
            imported: Vec::new(),
            found: Vec::new(),
        };
        collector.visit_file(&file.syntax);
        let mut found = collector.found;
        for mention in &mut found {
            if mention.path.len() > 1
                && mention.path[0] == "crate"
                && !self.has_module(&mention.path[1..2])
                && let Some(path) = self.root_names.get(&mention.path[1])
            {
                let rest = mention.path.split_off(2);
                mention.path.truncate(1);
                mention
                    .path
                    .extend(path.iter().filter(|part| *part != "crate").cloned());
                mention.path.extend(rest);
            }
        }
        found
    }
}

/// Where each name that a file imports comes from.
pub(crate) fn imports(items: &[syn::Item]) -> BTreeMap<String, Vec<String>> {
    let uses = items.iter().filter_map(|item| match item {
        syn::Item::Use(item) => Some(item),
        _ => None,
    });
    uses.flat_map(|item| leaves(&item.tree))
        .map(|(name, path, _)| (name, path))
        .collect()
}

/// The names of a `use`, each with its whole path.
pub(crate) fn leaves(tree: &syn::UseTree) -> Vec<(String, Vec<String>, Span)> {
    fn walk(tree: &syn::UseTree, prefix: &[String], found: &mut Vec<(String, Vec<String>, Span)>) {
        let with = |name: &syn::Ident| {
            let mut path = prefix.to_vec();
            if name != "self" || path.is_empty() {
                path.push(name.to_string());
            }
            path
        };
        match tree {
            syn::UseTree::Path(tree) => walk(&tree.tree, &with(&tree.ident), found),
            syn::UseTree::Name(tree) => {
                let path = with(&tree.ident);
                found.push((
                    path.last().cloned().unwrap_or_default(),
                    path,
                    tree.ident.span(),
                ));
            }
            syn::UseTree::Rename(tree) => {
                found.push((
                    tree.rename.to_string(),
                    with(&tree.ident),
                    tree.ident.span(),
                ));
            }
            syn::UseTree::Glob(tree) => {
                found.push(("*".to_owned(), prefix.to_vec(), tree.star_token.span()));
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    walk(tree, prefix, found);
                }
            }
        }
    }
    let mut found = Vec::new();
    walk(tree, &[], &mut found);
    found
}

/// The crates of a manifest, those for development left out.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.contains("dev-dependencies");
        } else if inside && let Some(end) = line.find(['.', ' ', '=']) {
            found.push(line[..end].replace('-', "_"));
        }
    }
    found
}

fn without_tests(items: &mut Vec<syn::Item>) {
    items.retain(|item| match item {
        syn::Item::Mod(item) => !is_for_tests(&item.attrs),
        syn::Item::Fn(item) => !is_for_tests(&item.attrs),
        syn::Item::Use(item) => !is_for_tests(&item.attrs),
        _ => true,
    });
    for item in items {
        if let syn::Item::Mod(syn::ItemMod {
            content: Some((_, items)),
            ..
        }) = item
        {
            without_tests(items);
        }
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|what| what == "test")
    })
}

struct Collector {
    module: Vec<String>,
    imported: Vec<String>,
    found: Vec<Mention>,
}

impl Collector {
    fn add(&mut self, path: Vec<String>, span: Span) {
        if let Some(path) = absolute(&self.module, path) {
            self.found.push(Mention {
                path,
                line: span.start().line,
            });
        }
    }

    /// What a macro is given is not parsed; a path in it still looks like one.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is_punct = |at: usize, wanted: char| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == wanted);
        let mut at = 0;
        while at < tokens.len() {
            if let TokenTree::Group(group) = &tokens[at] {
                self.add_tokens(group.stream());
            }
            let TokenTree::Ident(first) = &tokens[at] else {
                at += 1;
                continue;
            };
            // `$crate` is the crate of whoever uses the macro's expansion, not this file.
            let ours = at == 0 || !is_punct(at - 1, '$');
            let (mut path, span) = (vec![first.to_string()], first.span());
            at += 1;
            while is_punct(at, ':')
                && is_punct(at + 1, ':')
                && let Some(TokenTree::Ident(next)) = tokens.get(at + 2)
            {
                path.push(next.to_string());
                at += 3;
            }
            if ours && path.len() > 1 {
                self.add(path, span);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for (name, path, span) in leaves(&item.tree) {
            self.imported.push(name);
            self.add(path, span);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        // One segment is a name of this file; where it comes from, its `use` says.
        if parts.len() > 1 {
            self.add(parts, path.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.add_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }
}

/// `None` for a path that climbs out of the crate.
fn absolute(module: &[String], path: Vec<String>) -> Option<Vec<String>> {
    if path[0] != "self" && path[0] != "super" {
        return Some(path);
    }
    let ups = path
        .iter()
        .take_while(|part| *part == "super" || *part == "self");
    let (mut skip, mut depth) = (0, module.len());
    for part in ups {
        skip += 1;
        if part == "super" {
            depth = depth.checked_sub(1)?;
        }
    }
    let mut whole = vec!["crate".to_owned()];
    whole.extend_from_slice(&module[..depth]);
    whole.extend(path.into_iter().skip(skip));
    Some(whole)
}
