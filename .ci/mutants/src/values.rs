//! Plain values of the types that functions return.

use proc_macro2::Span;
use syn::spanned::Spanned;

/// Most values of one type.
const MOST: usize = 4;

/// Some values of a type, as code; none of a type that is not known to have any. Whether a type of the library's has a default is for the
/// compiler to say.
pub fn of(of: &syn::Type, text: impl Fn(Span) -> String + Copy) -> Vec<String> {
    let mut values = all(of, text);
    values.truncate(MOST);
    values
}

fn all(of: &syn::Type, text: impl Fn(Span) -> String + Copy) -> Vec<String> {
    match of {
        syn::Type::Paren(inner) => all(&inner.elem, text),
        syn::Type::Group(inner) => all(&inner.elem, text),
        syn::Type::Tuple(tuple) => tuples(tuple, text),
        syn::Type::Array(array) => {
            let length = text(array.len.span());
            all(&array.elem, text).iter().map(|value| format!("[{value}; {length}]")).collect()
        }
        syn::Type::Reference(reference) if reference.mutability.is_none() => match &*reference.elem {
            syn::Type::Path(path) if path.path.is_ident("str") => strings(&["\"\"", "\"xyzzy\""]),
            syn::Type::Slice(_) => strings(&["&[]"]),
            _ => Vec::new(),
        },
        syn::Type::Path(path) => path.path.segments.last().map_or(Vec::new(), |last| named(last, text)),
        _ => Vec::new(),
    }
}

fn named(last: &syn::PathSegment, text: impl Fn(Span) -> String + Copy) -> Vec<String> {
    let inner = || inner(&last.arguments).map_or(Vec::new(), |inner| of(inner, text));
    let each = |wrap: &str| inner().iter().map(|value| format!("{wrap}({value})")).collect::<Vec<_>>();
    match last.ident.to_string().as_str() {
        "bool" => strings(&["true", "false"]),
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => strings(&["0", "1"]),
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => strings(&["0", "1", "-1"]),
        "f32" | "f64" => strings(&["0.0", "1.0", "-1.0"]),
        "String" => strings(&["String::new()", "\"xyzzy\".into()"]),
        "Option" => strings(&["None"]).into_iter().chain(each("Some")).collect(),
        "Result" => each("Ok"),
        "Vec" => {
            let one = inner().into_iter().map(|value| format!("vec![{value}]"));
            strings(&["vec![]"]).into_iter().chain(one).collect()
        }
        wrapper @ ("Box" | "Arc" | "Rc") => each(&format!("{wrapper}::new")),
        _ => strings(&["Default::default()"]),
    }
}

fn inner(arguments: &syn::PathArguments) -> Option<&syn::Type> {
    let syn::PathArguments::AngleBracketed(arguments) = arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        syn::GenericArgument::Type(inner) => Some(inner),
        _ => None,
    })
}

/// The first values of all its parts, the second ones, and so on.
fn tuples(tuple: &syn::TypeTuple, text: impl Fn(Span) -> String + Copy) -> Vec<String> {
    let parts: Vec<_> = tuple.elems.iter().map(|part| of(part, text)).collect();
    if parts.is_empty() {
        return strings(&["()"]);
    }
    let most = if parts.iter().any(Vec::is_empty) { 0 } else { parts.iter().map(Vec::len).max().unwrap_or(0) };
    let value = |index: usize| {
        let parts: Vec<_> = parts.iter().map(|values| values[index.min(values.len() - 1)].as_str()).collect();
        format!("({},)", parts.join(", "))
    };
    (0..most).map(value).collect()
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}
