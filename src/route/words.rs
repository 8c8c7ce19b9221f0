//! Words that say something of a prompt: one table of their hashes, so that a word costs a load and a comparison.

use std::sync::LazyLock;

use crate::escalate::structural::language::WORDS;

/// What a word speaks for; bits of [`Word::marks`].
pub const STEPS: u8 = 1;
pub const CONSTRAINT: u8 = 2;
/// A name that is hardly said without code being meant.
pub const CODE_NAME: u8 = 4;
/// A word of programmers that others use too.
pub const CODE_WORD: u8 = 8;
/// Asks for more than one step of thought by itself.
pub const REASONING: u8 = 16;

/// The words of [`STEPS`] and [`CONSTRAINT`] are what the weights of `rules.rs` were fitted with: leave them.
const LISTS: [(u8, &[&str]); 5] = [
    (
        STEPS,
        &[
            "analyze",
            "analyse",
            "because",
            "calculate",
            "compare",
            "compute",
            "consider",
            "contrast",
            "critique",
            "debug",
            "deduce",
            "derive",
            "design",
            "determine",
            "diagnose",
            "estimate",
            "evaluate",
            "explain",
            "how",
            "implement",
            "infer",
            "integral",
            "justify",
            "optimal",
            "optimize",
            "plan",
            "probability",
            "proof",
            "prove",
            "reason",
            "refactor",
            "solve",
            "step",
            "steps",
            "strategy",
            "theorem",
            "tradeoffs",
            "why",
        ],
    ),
    (
        CONSTRAINT,
        &[
            "always",
            "at",
            "avoid",
            "constraint",
            "each",
            "ensure",
            "every",
            "exactly",
            "except",
            "least",
            "most",
            "must",
            "never",
            "not",
            "only",
            "required",
            "requirements",
            "should",
            "unless",
            "without",
        ],
    ),
    (
        CODE_NAME,
        &[
            "python",
            "javascript",
            "typescript",
            "java",
            "kotlin",
            "rust",
            "golang",
            "php",
            "perl",
            "haskell",
            "cpp",
            "csharp",
            "sql",
            "sqlite",
            "postgres",
            "postgresql",
            "mysql",
            "mongodb",
            "regex",
            "regexp",
            "html",
            "css",
            "json",
            "yaml",
            "bash",
            "powershell",
            "dockerfile",
            "docker",
            "kubernetes",
            "django",
            "numpy",
            "pandas",
            "pytorch",
            "pytest",
            "npm",
            "api",
            "http",
            "sdk",
            "git",
            "github",
            "compiler",
            "stacktrace",
            "traceback",
            "segfault",
            "async",
            "def",
            "struct",
            "enum",
            "boolean",
            "unittest",
            "stderr",
            "stdout",
            "backend",
            "frontend",
            "nullpointerexception",
            "typeerror",
            "valueerror",
            "keyerror",
            "refactor",
            "codebase",
            "subclass",
            "decorator",
            "mutex",
            "sudo",
            "makefile",
            "webpack",
            "nginx",
            "jquery",
        ],
    ),
    (
        CODE_WORD,
        &[
            "code",
            "function",
            "functions",
            "method",
            "class",
            "classes",
            "script",
            "program",
            "programming",
            "algorithm",
            "array",
            "string",
            "strings",
            "variable",
            "loop",
            "recursion",
            "recursive",
            "iterate",
            "parse",
            "parser",
            "query",
            "database",
            "endpoint",
            "server",
            "library",
            "module",
            "import",
            "return",
            "returns",
            "implement",
            "debug",
            "bug",
            "exception",
            "error",
            "compile",
            "syntax",
            "integer",
            "pointer",
            "thread",
            "threads",
            "unit",
            "tests",
            "test",
            "object",
            "list",
            "dictionary",
            "hash",
            "binary",
            "tree",
            "stack",
            "queue",
            "sort",
            "sorts",
            "reverses",
            "optimize",
            "const",
            "let",
            "var",
            "null",
            "void",
            "int",
            "react",
            "swift",
            "ruby",
            "shell",
            "linux",
            "terminal",
            "command",
            "file",
            "csv",
            "table",
            "column",
            "join",
            "component",
            "type",
            "interface",
            "field",
            "fonction",
            "funktion",
            "función",
            "функция",
            "函数",
        ],
    ),
    (
        REASONING,
        &[
            "prove",
            "proof",
            "disprove",
            "derive",
            "deduce",
            "theorem",
            "lemma",
            "integral",
            "derivative",
            "probability",
            "contradiction",
            "induction",
            "paradox",
            "puzzle",
            "riddle",
            "infer",
            "justify",
            "optimal",
            "tradeoffs",
            "critique",
            "diagnose",
            "counterexample",
            "converge",
            "converges",
            "eigenvalue",
            "eigenvalues",
            "irrational",
            "polynomial",
            "equation",
            "equations",
            "maximize",
            "minimize",
            "expected",
            "hypothesis",
            "causal",
            "implications",
            "strategy",
            "evaluate",
            "premises",
            "logically",
            "rigorous",
            "rigorously",
            "feasible",
            "schedule",
            "bayes",
            "bayesian",
            "combinatorial",
            "permutations",
            "divisible",
            "prime",
            "primes",
            "weigh",
            "reconcile",
            "liars",
            "knights",
            "knaves",
            "dilemma",
            "equilibrium",
        ],
    ),
];

/// What is known of a word; all 0 = nothing.
#[derive(Clone, Copy, Default)]
pub struct Word {
    pub marks: u8,
    /// A bit for each language of `language::WORDS` that has it among its commonest words.
    pub languages: u8,
}

const SLOTS: usize = 2048;

/// Open addressing; not half full.
struct Table([(u32, Word); SLOTS]);

impl Table {
    fn slot(&self, hash: u32) -> usize {
        let mut at = hash as usize % SLOTS;
        while self.0[at].0 != hash && (self.0[at].1.marks | self.0[at].1.languages) != 0 {
            at = (at + 1) % SLOTS;
        }
        at
    }
}

static TABLE: LazyLock<Box<Table>> = LazyLock::new(|| {
    let mut table = Box::new(Table([(0, Word::default()); SLOTS]));
    let hash = |word: &str| word.bytes().fold(FIRST, step);
    for (mark, words) in LISTS {
        for word in words {
            let at = table.slot(hash(word));
            table.0[at].0 = hash(word);
            table.0[at].1.marks |= mark;
        }
    }
    for (language, words) in WORDS.iter().enumerate() {
        for word in *words {
            let at = table.slot(hash(word));
            table.0[at].0 = hash(word);
            table.0[at].1.languages |= 1 << language;
        }
    }
    table
});

/// A view of the table: taken once a text.
#[derive(Clone, Copy)]
pub struct Words(&'static Table);

impl Words {
    pub fn get() -> Self {
        Self(&TABLE)
    }

    /// `hash`: of the word in ASCII's lower case, by [`step`] from [`FIRST`].
    pub fn of(self, hash: u32) -> Word {
        self.0.0[self.0.slot(hash)].1
    }
}

/// FNV-1a, 32 bits.
pub const FIRST: u32 = 0x811c_9dc5;

pub fn step(hash: u32, byte: u8) -> u32 {
    (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
}
