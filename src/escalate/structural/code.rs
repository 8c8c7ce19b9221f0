//! The code blocks of an answer, and whether what is in them can be right.
//!
//! Sees blocks that do not end, Python whose brackets, quotes or indentation cannot be parsed, JSON that is none, and
//! brackets that do not pair in languages with braces. Does not see code outside of blocks, nor any error that needs a
//! real parser: a missing colon passes. Says nothing of code that the prompt itself shows, of code with parts left out, and
//! where the talk is of syntax errors.

mod brackets;
mod python;

/// Blocks that are looked into, and bytes of one.
const MOST_BLOCKS: usize = 64;
const MOST_BYTES: usize = 128 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct Blocks {
    blocks: Vec<Block>,
    /// The last one does not end.
    pub is_open: bool,
    /// The text without blocks and without rows of tables.
    pub prose: String,
}

#[derive(Debug)]
struct Block {
    /// Lower case; empty = not said.
    language: String,
    code: String,
}

/// An open fence.
struct Fence<'a> {
    sign: char,
    length: usize,
    indent: usize,
    info: &'a str,
}

impl Blocks {
    pub fn read(text: &str) -> Self {
        let mut blocks = Self::default();
        let mut open: Vec<Fence<'_>> = Vec::new();
        let mut code = String::new();
        let mut fences = 0_usize;
        for line in text.lines() {
            let fence = fence(line);
            let Some(current) = open.last() else {
                if let Some(fence) = fence {
                    fences += 1;
                    open.push(fence);
                } else if !line.trim_start().starts_with('|') {
                    blocks.prose.push_str(line);
                    blocks.prose.push('\n');
                }
                continue;
            };
            let is_close = fence.as_ref().is_some_and(|fence| {
                fence.sign == current.sign && fence.length >= current.length && fence.info.is_empty()
            });
            // Models close a block at the end of its last line, too.
            let is_late = fence.is_none() && line.trim_end().ends_with("```") && line.matches("```").count() == 1;
            if is_close || is_late {
                fences += 1;
                if open.len() == 1 {
                    if is_late {
                        code.push_str(line.trim_end().trim_end_matches('`'));
                    }
                    blocks.add(current.info, std::mem::take(&mut code));
                }
                open.pop();
                continue;
            }
            match fence {
                // Markdown that shows Markdown; by the letter of the standard it ends at the first inner block.
                Some(fence) if is_markdown(current.info) && !fence.info.is_empty() => {
                    fences += 1;
                    open.push(fence);
                }
                _ => {
                    let indent = line.len() - line.trim_start_matches(' ').len();
                    code.push_str(line.get(indent.min(current.indent)..).unwrap_or_default());
                    code.push('\n');
                }
            }
        }
        blocks.is_open = !open.is_empty() && fences % 2 == 1;
        blocks
    }

    fn add(&mut self, info: &str, code: String) {
        if self.blocks.len() < MOST_BLOCKS && code.len() <= MOST_BYTES {
            let language = info.split(|c: char| c.is_whitespace() || c == '{' || c == ',').next().unwrap_or_default();
            self.blocks.push(Block { language: language.to_lowercase(), code });
        }
    }

    pub fn has_broken_python(&self, context: &str) -> bool {
        self.any(context, |block| is_of(block, &["python", "py", "python3"]) && !python::may_parse(&block.code))
    }

    /// Comments, ellipses and placeholders are how documents show JSON: such blocks are not looked at.
    pub fn has_broken_json(&self, context: &str) -> bool {
        self.any(context, |block| {
            let is_sketch = ["...", "…", "//", "/*", "<", "#"].iter().any(|sign| block.code.contains(sign));
            is_of(block, &["json"]) && !is_sketch && !is_json(&block.code)
        })
    }

    pub fn has_unbalanced_code(&self, context: &str) -> bool {
        self.any(context, |block| brackets::are_unbalanced(&block.language, &block.code))
    }

    fn any(&self, context: &str, is_broken: impl Fn(&Block) -> bool) -> bool {
        let about_errors = |text: &str| {
            let lower = text.to_lowercase();
            ["syntaxerror", "syntax error", "indentationerror", "unbalanced", "incomplete"]
                .iter()
                .any(|sign| lower.contains(sign))
        };
        self.blocks.iter().any(|block| is_broken(block) && !context.contains(block.code.trim()))
            && !about_errors(context)
            && !about_errors(&self.prose)
    }
}

/// The text in a block that is the whole answer.
pub fn unfenced(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("```")?.strip_suffix("```")?;
    let (info, code) = inner.split_once('\n')?;
    (!code.contains("```") && info.trim().chars().all(char::is_alphanumeric)).then_some(code)
}

fn fence(line: &str) -> Option<Fence<'_>> {
    let body = line.trim_start();
    let sign = body.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let info = body.trim_start_matches(sign);
    let length = body.len() - info.len();
    let is_fence = length >= 3 && !(sign == '`' && info.contains('`'));
    is_fence.then(|| Fence { sign, length, indent: line.len() - body.len(), info: info.trim() })
}

fn is_markdown(info: &str) -> bool {
    matches!(info, "" | "markdown" | "md" | "Markdown" | "mdx")
}

fn is_of(block: &Block, languages: &[&str]) -> bool {
    languages.contains(&block.language.as_str())
}

/// One value, or several one after the other.
fn is_json(code: &str) -> bool {
    let mut values = serde_json::Deserializer::from_str(code).into_iter::<serde::de::IgnoredAny>();
    values.all(|value| match value {
        Ok(_) => true,
        Err(error) => error.to_string().contains("recursion limit"),
    })
}
