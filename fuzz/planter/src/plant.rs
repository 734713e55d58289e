//! Where each mutant goes in the source, and the source with all of them in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use anyhow::Context as _;
use serde::Deserialize;
use syn::{
    Block, Expr, ExprBinary, ExprMatch, ExprStruct, ExprUnary, Signature,
    spanned::Spanned,
    visit::{self, Visit},
};

/// A mutant, as cargo-mutants lists it.
#[derive(Debug, Deserialize)]
pub struct Mutant {
    /// Place and change, for people.
    pub name: String,
    /// The file, from the crate's root.
    pub file: String,
    /// What kind of change it is.
    pub genre: String,
    function: Option<Function>,
    span: Span,
    replacement: String,
}

#[derive(Debug, Deserialize)]
struct Function {
    return_type: String,
}

#[derive(Debug, Deserialize)]
struct Span {
    start: Place,
    end: Place,
}

/// Line and column, both from 1; columns count characters.
#[derive(Debug, Deserialize)]
struct Place {
    line: usize,
    column: usize,
}

impl Mutant {
    /// Whether it returns another type early than the one that the function has and hides.
    pub fn is_hidden(&self) -> bool {
        self.genre == "FnValue" && self.function.as_ref().is_some_and(|f| f.return_type.contains("impl "))
    }
}

/// A part of what stands in an expression's place.
enum Piece {
    Text(&'static str),
    /// Of a mutant.
    Of(usize, String),
    /// What was there, with the mutants in it.
    Inner,
}

struct Site {
    range: Range<usize>,
    pieces: Vec<Piece>,
    inner: Vec<Site>,
}

/// The source with mutants in it.
#[derive(Default)]
pub struct Planted {
    /// The source.
    pub text: String,
    /// Where in it each mutant is; of some there are two parts.
    pub places: Vec<(usize, Range<usize>)>,
    /// Mutants that have no place.
    pub homeless: Vec<usize>,
    /// Those that the grammar refuses: a condition that binds something with `||` in it.
    pub refused: Vec<usize>,
}

/// Plants those of the file's mutants that are in `alive`.
pub fn plant(source: &str, mutants: &[(usize, &Mutant)], alive: &BTreeSet<usize>) -> anyhow::Result<Planted> {
    let lines: Vec<usize> =
        std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let offset = |place: &Place| {
        let begin = lines[place.line - 1];
        let column = source[begin..].char_indices().nth(place.column - 1);
        column.map_or(source.len(), |(at, _)| begin + at)
    };
    let mut finder = Finder { source, mutants: BTreeMap::new(), sites: Vec::new(), refused: Vec::new() };
    let mut homeless = Vec::new();
    for (n, mutant) in mutants.iter().filter(|(n, _)| alive.contains(n)) {
        if mutant.is_hidden() {
            homeless.push(*n);
            continue;
        }
        let range = offset(&mutant.span.start)..offset(&mutant.span.end);
        finder.mutants.entry((mutant.genre.as_str(), range.start)).or_default().push((*n, range, *mutant));
    }
    finder.visit_file(&syn::parse_file(source).context("the source is not Rust")?);
    let mut planted = Planted { refused: finder.refused, ..Planted::default() };
    homeless.extend(finder.mutants.into_values().flatten().map(|(n, _, _)| n));
    planted.homeless = homeless;
    let mut sites = finder.sites;
    // Outer ones first; of two of one range, the one that was found first.
    sites.sort_by_key(|site| (site.range.start, usize::MAX - site.range.end));
    let mut sites = sites.into_iter().peekable();
    let sites = nest(&mut sites, source.len());
    write(source, 0..source.len(), &sites, &mut planted);
    Ok(planted)
}

/// The sites that end by `end`, each with those inside it.
fn nest(sites: &mut std::iter::Peekable<std::vec::IntoIter<Site>>, end: usize) -> Vec<Site> {
    let mut nested = Vec::new();
    while let Some(mut site) = sites.next_if(|site| site.range.end <= end) {
        site.inner = nest(sites, site.range.end);
        nested.push(site);
    }
    nested
}

fn write(source: &str, range: Range<usize>, sites: &[Site], out: &mut Planted) {
    let mut at = range.start;
    for site in sites {
        out.text.push_str(&source[at..site.range.start]);
        for piece in &site.pieces {
            match piece {
                Piece::Text(text) => out.text.push_str(text),
                Piece::Inner => write(source, site.range.clone(), &site.inner, out),
                Piece::Of(mutant, text) => {
                    let begin = out.text.len();
                    out.text.push_str(text);
                    out.places.push((*mutant, begin..out.text.len()));
                }
            }
        }
        at = site.range.end;
    }
    out.text.push_str(&source[at..range.end]);
}

/// The switch of a mutant.
pub fn on(n: usize) -> String {
    format!("crate::mutants::on({n})")
}

type Found<'m> = (usize, Range<usize>, &'m Mutant);

struct Finder<'m> {
    source: &'m str,
    /// Those not found yet, by their kind and where they begin.
    mutants: BTreeMap<(&'m str, usize), Vec<Found<'m>>>,
    sites: Vec<Site>,
    refused: Vec<usize>,
}

impl<'m> Finder<'m> {
    fn take(&mut self, genre: &'static str, at: usize) -> Vec<Found<'m>> {
        self.mutants.remove(&(genre, at)).unwrap_or_default()
    }

    /// Puts an expression's mutants beside it: what stands in `range`, with each mutant's own part replaced.
    fn choose(&mut self, range: Range<usize>, mutants: Vec<Found<'m>>) {
        let Some(last) = mutants.len().checked_sub(1) else { return };
        let mut pieces = vec![Piece::Text("(if ")];
        for (at, (n, _, _)) in mutants.iter().enumerate() {
            pieces.push(Piece::Text(if at > 0 { " && " } else { "" }));
            pieces.push(Piece::Of(*n, format!("!{}", on(*n))));
        }
        // The original comes first: its type is the right one.
        pieces.extend([Piece::Text(" { "), Piece::Inner, Piece::Text(" }")]);
        for (at, (n, own, mutant)) in mutants.into_iter().enumerate() {
            let (before, behind) = (&self.source[range.start..own.start], &self.source[own.end..range.end]);
            let when = if at == last { String::new() } else { format!("if {} ", on(n)) };
            pieces.push(Piece::Of(n, format!(" else {when}{{ {before}{}{behind} }}", mutant.replacement)));
        }
        pieces.push(Piece::Text(")"));
        self.sites.push(Site { range, pieces, inner: Vec::new() });
    }

    /// A constant function can't look at a switch. Where a constant needs it, it compiles no more.
    fn unfreeze(&mut self, signature: &Signature, block: &Block) {
        let inside = block.span().byte_range();
        let mutated = self.mutants.keys().any(|(_, at)| inside.contains(at));
        if let Some(word) = signature.constness.filter(|_| mutated) {
            self.sites.push(Site { range: word.span.byte_range(), pieces: Vec::new(), inner: Vec::new() });
        }
    }

    /// Puts other values at a function's beginning.
    fn return_early(&mut self, signature: &Signature, block: &Block) {
        self.unfreeze(signature, block);
        let Some(first) = block.stmts.first() else { return };
        let mutants = self.take("FnValue", first.span().byte_range().start);
        let at = block.brace_token.span.open().byte_range().end;
        let early = |(n, _, mutant): &Found<'m>| {
            Piece::Of(*n, format!(" if {} {{ return {}; }}", on(*n), mutant.replacement))
        };
        let pieces = mutants.iter().map(early).collect();
        self.sites.push(Site { range: at..at, pieces, inner: Vec::new() });
    }
}

/// Whether a condition binds anything: then it can't stand in parentheses.
fn binds(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(ExprBinary { left, right, .. }) => binds(left) || binds(right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.return_early(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.return_early(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.return_early(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr_binary(&mut self, expression: &'ast ExprBinary) {
        let mutants = self.take("BinaryOperator", expression.op.span().byte_range().start);
        if binds(&expression.left) || binds(&expression.right) {
            self.refused.extend(mutants.iter().map(|(n, _, _)| *n));
        } else {
            self.choose(expression.span().byte_range(), mutants);
        }
        visit::visit_expr_binary(self, expression);
    }

    fn visit_expr_unary(&mut self, expression: &'ast ExprUnary) {
        let mutants = self.take("UnaryOperator", expression.op.span().byte_range().start);
        self.choose(expression.span().byte_range(), mutants);
        visit::visit_expr_unary(self, expression);
    }

    fn visit_expr_struct(&mut self, expression: &'ast ExprStruct) {
        let mut mutants = Vec::new();
        for field in &expression.fields {
            mutants.extend(self.take("StructField", field.span().byte_range().start));
        }
        self.choose(expression.span().byte_range(), mutants);
        visit::visit_expr_struct(self, expression);
    }

    fn visit_expr_match(&mut self, expression: &'ast ExprMatch) {
        // An arm is taken out by a guard, so the others must be exhaustive.
        let all_caught =
            expression.arms.iter().any(|arm| matches!(arm.pat, syn::Pat::Wild(_)) && arm.guard.is_none());
        for arm in &expression.arms {
            if let Some((_, guard)) = &arm.guard {
                let range = guard.span().byte_range();
                if !binds(guard) {
                    let mutants = self.take("MatchArmGuard", range.start);
                    let mut pieces = vec![Piece::Text("(")];
                    for (n, _, mutant) in mutants {
                        let always = mutant.replacement == "true";
                        let text = if always { format!("{} || ", on(n)) } else { format!("!{} && ", on(n)) };
                        pieces.push(Piece::Of(n, text));
                    }
                    pieces.extend([Piece::Text("("), Piece::Inner, Piece::Text("))")]);
                    self.sites.push(Site { range, pieces, inner: Vec::new() });
                }
            }
            for (n, _, _) in self.take("MatchArm", arm.span().byte_range().start) {
                if !all_caught {
                    self.refused.push(n);
                    continue;
                }
                let at = arm.pat.span().byte_range().end;
                let pieces = vec![Piece::Of(n, format!(" if !{}", on(n)))];
                self.sites.push(Site { range: at..at, pieces, inner: Vec::new() });
            }
        }
        visit::visit_expr_match(self, expression);
    }
}
