//! Functions of the user's that stages call: routers and scorers. The core knows them by number; who calls them is `py/`.

use async_trait::async_trait;
use serde_json::Value;

/// A function of the user's gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// It raised; or it is gone, or what it returned is not JSON.
    #[error("{0}")]
    Failed(String),
    /// The call comes from inside a function of the user's: functions are not called from there, or they would call
    /// themselves for ever.
    #[error("called from inside a function of the policy")]
    Inside,
}

/// Who can call the user's functions, for one call of the application.
#[async_trait]
pub trait Hooks: Send + Sync {
    /// Calls the function `number` with one argument, and waits for what it returns. Dropping the future gives up waiting.
    async fn call(&self, number: u64, argument: Value) -> Result<Value, HookError>;
}
