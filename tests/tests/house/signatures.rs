//! Which types stand in public signatures.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::rules::{EXCEPTIONS, PUBLIC};
use crate::source::{Crate, SourceFile, imports};

/// Every public signature that names a type of a crate we do not want to be bound to.
pub(crate) fn faults(code: &Crate) -> Vec<String> {
    look(code).0
}

/// The exceptions that no signature needs any more.
pub(crate) fn needless_exceptions(code: &Crate) -> Vec<String> {
    let (_, needed) = look(code);
    let needless = EXCEPTIONS
        .iter()
        .filter(|(path, _)| !needed.contains(*path));
    needless
        .map(|(path, _)| {
            format!("tests/tests/house/rules.rs: no public signature shows {path}; take it off EXCEPTIONS")
        })
        .collect()
}

fn look(code: &Crate) -> (Vec<String>, BTreeSet<String>) {
    let (mut faults, mut excepted) = (Vec::new(), BTreeSet::new());
    for file in &code.files {
        // Called by expansions only, and changed together with them.
        if file.module.first().is_some_and(|room| room == "__private") {
            continue;
        }
        items(code, file, &file.syntax.items, &mut faults, &mut excepted);
    }
    (faults, excepted)
}

fn items(
    code: &Crate,
    file: &SourceFile,
    list: &[syn::Item],
    faults: &mut Vec<String>,
    excepted: &mut BTreeSet<String>,
) {
    let imported = imports(list);
    let private: BTreeSet<String> = list.iter().filter_map(private_type).collect();
    let mut signatures = Signatures {
        code,
        file,
        imported: &imported,
        item: String::new(),
        faults,
        excepted,
    };
    for item in list {
        signatures.look_at(item, &private);
    }
    for item in list {
        if let syn::Item::Mod(syn::ItemMod {
            content: Some((_, list)),
            ..
        }) = item
        {
            items(code, file, list, faults, excepted);
        }
    }
}

fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

fn private_type(item: &syn::Item) -> Option<String> {
    let (visibility, name) = match item {
        syn::Item::Struct(item) => (&item.vis, &item.ident),
        syn::Item::Enum(item) => (&item.vis, &item.ident),
        _ => return None,
    };
    (!is_public(visibility)).then(|| name.to_string())
}

struct Signatures<'a> {
    code: &'a Crate,
    file: &'a SourceFile,
    imported: &'a BTreeMap<String, Vec<String>>,
    item: String,
    faults: &'a mut Vec<String>,
    excepted: &'a mut BTreeSet<String>,
}

impl Signatures<'_> {
    fn look_at(&mut self, item: &syn::Item, private: &BTreeSet<String>) {
        match item {
            syn::Item::Fn(item) if is_public(&item.vis) => {
                self.item = item.sig.ident.to_string();
                self.visit_signature(&item.sig);
            }
            syn::Item::Struct(item) if is_public(&item.vis) => {
                self.item = item.ident.to_string();
                self.visit_generics(&item.generics);
                for field in item.fields.iter().filter(|field| is_public(&field.vis)) {
                    self.visit_type(&field.ty);
                }
            }
            syn::Item::Enum(item) if is_public(&item.vis) => {
                self.item = item.ident.to_string();
                self.visit_generics(&item.generics);
                for field in item.variants.iter().flat_map(|variant| &variant.fields) {
                    self.visit_type(&field.ty);
                }
            }
            syn::Item::Type(item) if is_public(&item.vis) => {
                self.item = item.ident.to_string();
                self.visit_type(&item.ty);
            }
            syn::Item::Const(item) if is_public(&item.vis) => {
                self.item = item.ident.to_string();
                self.visit_type(&item.ty);
            }
            syn::Item::Static(item) if is_public(&item.vis) => {
                self.item = item.ident.to_string();
                self.visit_type(&item.ty);
            }
            syn::Item::Use(item) if is_public(&item.vis) => {
                for (name, path, span) in crate::source::leaves(&item.tree) {
                    self.item = name;
                    self.check(&path, span);
                }
            }
            syn::Item::Trait(item) if is_public(&item.vis) => {
                self.item = item.ident.to_string();
                self.visit_generics(&item.generics);
                item.supertraits
                    .iter()
                    .for_each(|bound| self.visit_type_param_bound(bound));
                for item in &item.items {
                    match item {
                        syn::TraitItem::Fn(item) => self.visit_signature(&item.sig),
                        syn::TraitItem::Type(item) => self.visit_trait_item_type(item),
                        _ => {}
                    }
                }
            }
            syn::Item::Impl(item) => self.look_at_impl(item, private),
            _ => {}
        }
    }

    fn look_at_impl(&mut self, item: &syn::ItemImpl, private: &BTreeSet<String>) {
        if let syn::Type::Path(of) = &*item.self_ty
            && let Some(name) = of.path.get_ident()
        {
            if private.contains(&name.to_string()) {
                return;
            }
            self.item = name.to_string();
        }
        if let Some((implemented, _)) = &item.trait_ {
            self.visit_path(implemented);
            self.visit_type(&item.self_ty);
            self.visit_generics(&item.generics);
            return;
        }
        for item in &item.items {
            if let syn::ImplItem::Fn(item) = item
                && is_public(&item.vis)
            {
                self.visit_signature(&item.sig);
            }
        }
    }

    fn check(&mut self, path: &[String], span: proc_macro2::Span) {
        let name = &path[0];
        if PUBLIC.contains(&name.as_str()) || !self.code.depends_on(name) {
            return;
        }
        let whole = path.join("::");
        if EXCEPTIONS.iter().any(|(excepted, _)| *excepted == whole) {
            self.excepted.insert(whole);
            return;
        }
        self.faults.push(format!(
            "{}:{}: public '{}' shows {}, a type of the crate {name}; wrap it in a type of ours, or \
             make the item pub(crate)",
            self.file.path.display(),
            span.start().line,
            self.item,
            whole,
        ));
    }
}

impl<'ast> Visit<'ast> for Signatures<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut parts: Vec<_> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        if let Some(whole) = self.imported.get(&parts[0]) {
            parts.splice(..1, whole.iter().cloned());
        }
        self.check(&parts, path.span());
        visit::visit_path(self, path);
    }
}
