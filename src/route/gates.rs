//! Which tiers cannot serve a request at all, whatever a router would say of it.
//!
//! What a model can do is the policy's word: nothing here is looked up or tried. Where nothing is said, a tier is trusted
//! with what nearly all models do (tools, JSON schemas) and not with what many do not (images, audio, files).

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::exchange::Request;
use crate::question::Question;

/// Names of what a tier can or cannot do.
pub const NAMES: [&str; 5] = ["images", "audio", "files", "tools", "json_schema"];

/// What a request takes for granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub images: bool,
    pub audio: bool,
    pub files: bool,
    pub tools: bool,
    pub json_schema: bool,
    /// Tokens of the prompt, and those that the answer may have; 0 = not counted.
    pub context: u64,
}

impl Needs {
    /// `count_tokens`: some tier has a limit of context. It is the dear part: a long prompt takes milliseconds.
    pub fn of(request: &Request, question: &Question, count_tokens: bool) -> Self {
        Self {
            images: question.has_images,
            audio: question.has_audio,
            files: question.has_files,
            // Calls of tools in what was said before are in a template that not every model has.
            tools: !question.tools.is_empty() || question.other_tools > 0 || question.after_tool,
            json_schema: question.schema.is_some(),
            context: if count_tokens { context(request, question) } else { 0 },
        }
    }

    /// The names of what is needed, in the order of [`NAMES`].
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let needed = [self.images, self.audio, self.files, self.tools, self.json_schema];
        NAMES.into_iter().zip(needed).filter_map(|(name, is_needed)| is_needed.then_some(name))
    }
}

/// With a tenth on top where the count is an estimate: a prompt that does not fit is an error, a dearer tier is not.
fn context(request: &Request, question: &Question) -> u64 {
    let count = crate::tokens::prompt_of(request).count;
    let margin = if count.estimated { count.tokens / 10 } else { 0 };
    count.tokens.saturating_add(margin).saturating_add(question.max_output.unwrap_or(0))
}

/// What the policy says of a tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    /// Of [`NAMES`].
    pub can: BTreeSet<String>,
    /// Of [`NAMES`].
    pub cannot: BTreeSet<String>,
    /// Tokens of prompt and answer together; None = no limit is known.
    pub context: Option<u64>,
}

impl Capabilities {
    /// # Errors
    /// A name that is unknown, or one that a tier both can and cannot do.
    pub fn check(&self) -> Result<(), String> {
        if let Some(name) = self.can.union(&self.cannot).find(|name| !NAMES.contains(&name.as_str())) {
            return Err(format!("unknown capability: {name:?}\nhint: known are {}", NAMES.join(", ")));
        }
        if let Some(name) = self.can.intersection(&self.cannot).next() {
            return Err(format!(
                "a tier both can and cannot do something: {name:?}\nhint: name it once, in `can` or in `cannot`"
            ));
        }
        Ok(())
    }
}

/// Why a tier cannot serve; None: it can. The default tier is where requests go that no other can serve, so it is only
/// ruled out by what the policy says that it cannot do.
pub fn rules_out(needs: &Needs, capabilities: &Capabilities, is_default: bool) -> Option<String> {
    for name in needs.names() {
        if capabilities.cannot.contains(name) {
            return Some(format!("{name}: the tier cannot"));
        }
        let is_common = matches!(name, "tools" | "json_schema");
        if !is_common && !is_default && !capabilities.can.contains(name) {
            return Some(format!("{name}: the tier does not say that it can"));
        }
    }
    let limit = capabilities.context.filter(|limit| needs.context > *limit)?;
    Some(format!("context: {} tokens, the tier takes {limit}", needs.context))
}
