//! What callgrind counted: instructions, and calls of the allocator. Neither depends on what else the
//! machine does.

use std::{collections::HashMap, fmt::Write as _};

/// Where memory is asked for: mimalloc's entries, and those of the C library for what is not of Rust.
const ALLOCATORS: [&str; 10] = [
    "mi_malloc",
    "mi_malloc_aligned",
    "mi_zalloc",
    "mi_zalloc_aligned",
    "mi_calloc",
    "mi_realloc",
    "mi_realloc_aligned",
    "malloc",
    "calloc",
    "realloc",
];

/// The figures of one dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Instructions of all threads.
    pub instructions: u64,
    /// Calls of an allocator by anybody but an allocator.
    pub allocations: u64,
    /// Instructions of each function itself, most first.
    pub functions: Vec<(String, u64)>,
}

impl Counted {
    /// Reads a dump; `None` when it is none.
    #[must_use]
    pub fn parse(dump: &str) -> Option<Self> {
        let mut names: HashMap<&str, &str> = HashMap::new();
        let mut own: HashMap<&str, u64> = HashMap::new();
        let (mut instructions, mut allocations) = (None, 0);
        let (mut function, mut callee) = ("", "");
        // The line behind `calls=` has what the callee cost.
        let mut of_callee = false;
        for line in dump.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = named(&mut names, name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = named(&mut names, name);
            } else if let Some(calls) = line.strip_prefix("calls=") {
                let count: u64 = calls.split_whitespace().next()?.parse().ok()?;
                if allocates(callee) && !allocates(function) {
                    allocations += count;
                }
                of_callee = true;
            } else if let Some(total) =
                line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:"))
            {
                instructions = total.split_whitespace().next()?.parse().ok();
            } else if line.starts_with(is_cost)
                && !std::mem::take(&mut of_callee)
                && let Some(cost) = line.split_whitespace().nth(1)
            {
                *own.entry(function).or_default() += cost.parse::<u64>().ok()?;
            }
        }
        let mut functions: Vec<_> =
            own.into_iter().map(|(name, cost)| (name.to_owned(), cost)).collect();
        functions.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        Some(Self { instructions: instructions?, allocations, functions })
    }

    /// The functions that cost most, for so many requests.
    #[must_use]
    pub fn costliest(&self, count: usize, requests: u64) -> String {
        let mut text = String::new();
        for (name, cost) in self.functions.iter().take(count) {
            let share = *cost as f64 * 100.0 / self.instructions.max(1) as f64;
            let each = cost / requests.max(1);
            let _ = writeln!(text, "{each:>8} {share:>5.1} %  {name}");
        }
        text
    }
}

/// A line of costs begins with a position, absolute or from the last one on.
fn is_cost(first: char) -> bool {
    first.is_ascii_digit() || "+-*".contains(first)
}

/// The name behind `(12) name`, or the one that had this number before.
fn named<'d>(names: &mut HashMap<&'d str, &'d str>, text: &'d str) -> &'d str {
    match text.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(text).copied().unwrap_or(text),
    }
}

/// Compilers append things like `'2` and `.part.0` to names.
fn allocates(name: &str) -> bool {
    let plain = name.split(['\'', '.', '@']).next().unwrap_or_default();
    ALLOCATORS.contains(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "\
version: 1
positions: line
events: Ir
fl=(1) a.c
fn=(1) sso_server::get
10 100
+2 50
cfn=(2) mi_malloc_aligned
calls=7 20
10 700
cfn=(3) serialize
calls=1 1
* 30

fn=(2)
20 600
cfn=(4) mi_malloc
calls=7 30
20 90
fn=(4)
30 80
fn=(3)
40 25
cfn=(5) malloc'2
calls=2 1
40 5
totals: 860
";

    #[test]
    fn instructions_are_those_of_functions_themselves() {
        let counted = Counted::parse(DUMP).unwrap();
        assert_eq!(counted.instructions, 860);
        let functions: Vec<_> =
            counted.functions.iter().map(|(name, cost)| (&**name, *cost)).collect();
        assert_eq!(
            functions,
            [
                ("mi_malloc_aligned", 600),
                ("sso_server::get", 150),
                ("mi_malloc", 80),
                ("serialize", 25)
            ]
        );
        assert!(counted.costliest(1, 10).contains("60  69.8 %  mi_malloc_aligned"));
    }

    #[test]
    fn an_allocator_that_calls_another_one_allocates_once() {
        assert_eq!(Counted::parse(DUMP).unwrap().allocations, 9);
    }

    #[test]
    fn what_is_no_dump_has_no_figures() {
        assert_eq!(Counted::parse("no such file"), None);
        assert_eq!(Counted::parse("fn=(1) f\ncalls=many"), None);
    }
}
