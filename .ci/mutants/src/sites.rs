//! Finds the places of a source file that can be changed, and what each can be changed to.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::values;

/// One change, which is in force when its number is the chosen one.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// From 1 on over all files; 0 changes nothing.
    pub number: u32,
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub function: String,
    /// What is replaced by what, for people.
    pub change: String,
    /// What stands there while this mutant is the chosen one.
    pub code: String,
}

/// A place in a file, by its bytes.
#[derive(Debug)]
pub struct Site {
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
    pub mutants: Vec<Mutant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The front of a function's body.
    Body,
    /// The front of a match guard that binds something.
    Guard,
    /// The end of a match arm's pattern.
    Arm,
    /// An expression that has the code of the mutants in its place.
    Choice,
}

/// All places of a file, in the order in which they begin, those around others first.
pub fn find(file: &str, source: &str) -> syn::Result<Vec<Site>> {
    let tree = syn::parse_file(source)?;
    let mut finder = Finder { file, source, owner: Vec::new(), sites: Vec::new() };
    finder.visit_file(&tree);
    let mut sites = finder.sites;
    sites.retain(|site| !site.mutants.is_empty());
    // A stable sort: of two with the same extent, the one found first is around the other.
    sites.sort_by_key(|site| (site.start, site.kind, std::cmp::Reverse(site.end)));
    Ok(sites)
}

struct Finder<'a> {
    file: &'a str,
    source: &'a str,
    /// Modules, types and functions around.
    owner: Vec<String>,
    sites: Vec<Site>,
}

impl Finder<'_> {
    fn text(&self, span: Span) -> &str {
        &self.source[span.byte_range()]
    }

    fn mutant(&self, at: Span, change: String, code: String) -> Mutant {
        let start = at.start();
        Mutant {
            number: 0,
            file: self.file.to_owned(),
            line: start.line,
            column: start.column + 1,
            function: self.owner.join("::"),
            change,
            code,
        }
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize, mutants: Vec<Mutant>) {
        self.sites.push(Site { start, end, kind, mutants });
    }

    /// An expression, or what stands in its place.
    fn push_choice(&mut self, whole: Span, at: Span, changes: Vec<(String, String)>) {
        let mutants = changes.into_iter().map(|(change, code)| self.mutant(at, change, code)).collect();
        let bytes = whole.byte_range();
        self.push(Kind::Choice, bytes.start, bytes.end, mutants);
    }

    fn inside(&mut self, name: String, visit: impl FnOnce(&mut Self)) {
        self.owner.push(name);
        visit(self);
        self.owner.pop();
    }

    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        if signature.constness.is_some() {
            return; // the choice is made at run time
        }
        self.inside(signature.ident.to_string(), |this| {
            this.whole_body(signature, body);
            this.visit_block(body);
        });
    }

    /// The function answers a plain value of its type, and does nothing.
    fn whole_body(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let within = self.text(body.span()).trim_matches(['{', '}']).trim().to_owned();
        let is_default = signature.ident == "default" && signature.inputs.is_empty();
        if within.is_empty() || is_default {
            return;
        }
        let at = body.brace_token.span.open().byte_range().end;
        let values = match &signature.output {
            syn::ReturnType::Default => vec![String::new()],
            syn::ReturnType::Type(_, of) => values::of(of, |span| self.text(span).to_owned()),
        };
        let name = signature.ident.span();
        let mutants = values.into_iter().filter(|value| *value != within).map(|value| {
            let shown = if value.is_empty() { "()" } else { &value };
            self.mutant(name, format!("the body to {shown}"), format!("return {value};"))
        });
        let mutants = mutants.collect();
        self.push(Kind::Body, at, at, mutants);
    }

    fn guard(&mut self, guard: &syn::Expr) {
        let bytes = guard.span().byte_range();
        if has_let(guard) {
            // What it binds is used behind it: it can be false, and not true.
            let never = self.mutant(guard.span(), "the guard to false".to_owned(), String::new());
            self.push(Kind::Guard, bytes.start, bytes.start, vec![never]);
        } else {
            let changes = ["true", "false"].map(|value| (format!("the guard to {value}"), value.to_owned()));
            self.push_choice(guard.span(), guard.span(), changes.into());
        }
    }

    fn deleted_arm(&mut self, arm: &syn::Arm) {
        let end = arm.pat.span().byte_range().end;
        let change = format!("the arm of {} to none", self.text(arm.pat.span()));
        let deleted = self.mutant(arm.pat.span(), change, String::new());
        self.push(Kind::Arm, end, end, vec![deleted]);
    }

    /// Whether an expression has attributes, and those leave it out.
    fn is_left_out(&self, expression: &syn::Expr) -> bool {
        let text = self.text(expression.span());
        let condition = text.strip_prefix("#[").and_then(|rest| rest.split_once(")]"));
        condition.is_some_and(|(meta, _)| syn::parse_str(&format!("{meta})")).is_ok_and(|meta| !holds(&meta)))
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if is_built(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if is_built(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = item.default.as_ref().filter(|_| is_built(&item.attrs)) {
            self.function(&item.sig, body);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_built(&item.attrs) {
            self.inside(item.ident.to_string(), |this| visit::visit_item_mod(this, item));
        }
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        if is_built(&item.attrs) {
            self.inside(item.ident.to_string(), |this| visit::visit_item_trait(this, item));
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let last = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
        let is_for_people = last.is_some_and(|segment| segment.ident == "Debug" || segment.ident == "Display");
        if is_built(&item.attrs) && !is_for_people {
            let name = self.text(item.self_ty.span()).to_owned();
            self.inside(name, |this| visit::visit_item_impl(this, item));
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if is_built(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_expr(&mut self, expression: &'ast syn::Expr) {
        if !self.is_left_out(expression) {
            visit::visit_expr(self, expression);
        }
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        let chains_let = has_let(&binary.left) || has_let(&binary.right);
        if binary.attrs.is_empty() && !chains_let {
            let (left, right) = (self.text(binary.left.span()), self.text(binary.right.span()));
            let operator = self.text(binary.op.span());
            let change = |to: &&str| (format!("{operator} to {to}"), format!("({left}) {to} ({right})"));
            let assign = |to: &&str| (format!("{operator} to {to}"), format!("{left} {to} ({right})"));
            let others = others(operator);
            let is_assignment = operator.ends_with('=') && !["==", "!=", "<=", ">="].contains(&operator);
            let changes = if is_assignment {
                others.iter().map(assign).collect()
            } else {
                others.iter().map(change).collect()
            };
            self.push_choice(binary.span(), binary.op.span(), changes);
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let operator = self.text(unary.op.span()).to_owned();
        if unary.attrs.is_empty() && operator != "*" {
            let bare = self.text(unary.expr.span()).to_owned();
            self.push_choice(unary.span(), unary.op.span(), vec![(format!("{operator} to nothing"), bare)]);
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_match(&mut self, choice: &'ast syn::ExprMatch) {
        self.visit_expr(&choice.expr);
        let catches_all = choice.arms.last().is_some_and(|arm| arm.guard.is_none() && is_any(&arm.pat));
        for (index, arm) in choice.arms.iter().enumerate() {
            if !is_built(&arm.attrs) {
                continue;
            }
            if let Some((_, guard)) = &arm.guard {
                self.guard(guard);
                self.visit_expr(guard);
            } else if catches_all && index + 1 < choice.arms.len() {
                self.deleted_arm(arm);
            }
            self.visit_expr(&arm.body);
        }
    }

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr); // its length is a constant
    }

    // What is known when the program is compiled, or is no expression.
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
    fn visit_generics(&mut self, _: &'ast syn::Generics) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

/// What an operator is changed to.
fn others(operator: &str) -> &'static [&'static str] {
    match operator {
        "==" => &["!="],
        "!=" => &["=="],
        "<" => &["==", ">", "<="],
        ">" => &["==", "<", ">="],
        "<=" => &[">"],
        ">=" => &["<"],
        "&&" => &["||"],
        "||" => &["&&"],
        "+" => &["-", "*"],
        "-" => &["+", "/"],
        "*" => &["+", "/"],
        "/" => &["%", "*"],
        "%" => &["/", "+"],
        "&" => &["|", "^"],
        "|" => &["&", "^"],
        "^" => &["|", "&"],
        "<<" => &[">>"],
        ">>" => &["<<"],
        "+=" => &["-=", "*="],
        "-=" => &["+=", "/="],
        "*=" => &["+=", "/="],
        "/=" => &["%=", "*="],
        "%=" => &["/=", "+="],
        "&=" => &["|=", "^="],
        "|=" => &["&=", "^="],
        "^=" => &["|=", "&="],
        "<<=" => &[">>="],
        ">>=" => &["<<="],
        _ => &[],
    }
}

/// Whether it is a chain of conditions of which one is a `let`, which cannot stand in parentheses.
fn has_let(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// Whether a pattern is met by everything: `_`, or a name. (Names of constants are in capitals.)
fn is_any(pattern: &syn::Pat) -> bool {
    match pattern {
        syn::Pat::Wild(_) => true,
        syn::Pat::Ident(name) => {
            name.subpat.is_none() && name.ident.to_string().starts_with(|first: char| first.is_lowercase())
        }
        _ => false,
    }
}

/// Whether the program that the tests use contains what has these attributes, and it is no test.
fn is_built(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().all(|attribute| !attribute.path().is_ident("test") && holds(&attribute.meta))
}

/// Whether a `cfg` holds on Linux with the features that the tests are built with; anything else does.
fn holds(meta: &syn::Meta) -> bool {
    let nested = |list: &syn::MetaList| {
        let parser = syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated;
        list.parse_args_with(parser).unwrap_or_default()
    };
    let named = |name: &str| meta.path().is_ident(name);
    match meta {
        syn::Meta::List(list) if named("cfg") || named("all") => nested(list).iter().all(holds),
        syn::Meta::List(list) if named("any") => nested(list).iter().any(holds),
        syn::Meta::List(list) if named("not") => !nested(list).iter().all(holds),
        syn::Meta::NameValue(pair) => {
            let value = match &pair.value {
                syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => text.value(),
                _ => String::new(),
            };
            !(named("feature") && value != "async" || named("target_os") && value != "linux")
        }
        _ => !(named("test") || named("shuttle") || named("tsan") || named("windows")),
    }
}
