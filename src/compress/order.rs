//! What another order of a prompt would gain: providers keep its beginning in their cache, up to the first difference.
//!
//! What comes again and again and stands behind something that changes is paid for in full each time. Nothing is put into
//! another order here; it is only counted.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::worth::LEAST_CACHED;

/// Bytes of a block that is worth a place of its own.
const LEAST: usize = 120;

pub type Hash = [u8; 16];

/// A paragraph of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    pub text: &'a str,
    pub own: Hash,
    /// Of everything up to its end.
    pub chain: Hash,
}

/// The paragraphs of all messages. `scope`: sets them apart from others'.
pub fn blocks<'a>(messages: &'a [Value], scope: &[u8]) -> Vec<Block<'a>> {
    let mut chain = Sha256::new_with_prefix(scope);
    let mut found = Vec::new();
    for message in messages {
        chain.update(message.get("role").and_then(Value::as_str).unwrap_or_default());
        chain.update([0]);
        for text in texts(message) {
            for paragraph in text.split_inclusive("\n\n") {
                chain.update(paragraph.as_bytes());
                let own = Sha256::new_with_prefix(scope).chain_update(paragraph.trim().as_bytes());
                found.push(Block { text: paragraph, own: short(own), chain: short(chain.clone()) });
            }
        }
    }
    found
}

/// Tokens that another order would have found in the provider's cache, and this one does not. `is_known`: whether a block's
/// own hash, and whether a chain has come before.
pub fn gain(blocks: &[Block<'_>], is_known: impl Fn(&Hash) -> bool, count: impl Fn(&str) -> u64) -> u64 {
    let first = blocks.iter().position(|block| !is_known(&block.chain)).unwrap_or(blocks.len());
    let (prefix, rest) = blocks.split_at(first);
    let behind: u64 = rest
        .iter()
        .filter(|block| block.text.len() >= LEAST && is_known(&block.own))
        .map(|block| count(block.text))
        .sum();
    if behind == 0 {
        return 0;
    }
    let before: u64 = prefix.iter().map(|block| count(block.text)).sum();
    if before + behind < LEAST_CACHED {
        return 0;
    }
    // What is too short to be in the cache by itself would be in it as well.
    if before < LEAST_CACHED { before + behind } else { behind }
}

/// The texts of a message.
pub fn texts(message: &Value) -> Vec<&str> {
    let content = message.get("content").or_else(|| message.get("output"));
    match content {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(parts)) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn short(hasher: Sha256) -> Hash {
    let whole: [u8; 32] = hasher.finalize().into();
    let mut hash = [0; 16];
    hash.copy_from_slice(&whole[..16]);
    hash
}
