//! The order of the stages, and the step from one to the next. What a stage does is its own file in `stages/`.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::context::Context;
use crate::error::Result;
use crate::exchange::{Request, Response};
use crate::stages::batch::BatchStage;
use crate::stages::cache::CacheStage;
use crate::stages::compress::CompressStage;
use crate::stages::escalate::EscalateStage;
use crate::stages::route::RouteStage;
use crate::upstream::Upstream;

/// One way to spend less on a request. One file in `stages/`, and one line in [`Pipeline::new`].
#[async_trait]
pub trait Stage: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    async fn call(&self, cx: &Context, request: Request, next: Next) -> Result<Response>;
}

/// All stages in their order, with the upstream at the end.
pub struct Pipeline {
    stages: Vec<Arc<dyn Stage>>,
    upstream: Upstream,
}

impl Pipeline {
    /// The one place where the order is written. The model is chosen before money is weighed: what compressing and
    /// batching are worth depends on the price of the model that reads the tokens.
    pub fn new(
        cache: Arc<CacheStage>,
        route: Option<RouteStage>,
        escalate: Option<EscalateStage>,
        compress: Option<CompressStage>,
        batch: Option<BatchStage>,
        upstream: Upstream,
    ) -> Arc<Self> {
        let mut stages: Vec<Arc<dyn Stage>> = vec![cache];
        stages.extend(route.map(|stage| Arc::new(stage) as Arc<dyn Stage>));
        stages.extend(escalate.map(|stage| Arc::new(stage) as Arc<dyn Stage>));
        stages.extend(compress.map(|stage| Arc::new(stage) as Arc<dyn Stage>));
        stages.extend(batch.map(|stage| Arc::new(stage) as Arc<dyn Stage>));
        Arc::new(Self { stages, upstream })
    }

    /// The whole pipeline.
    pub fn start(self: &Arc<Self>) -> Next {
        Next { pipeline: Arc::clone(self), position: 0 }
    }
}

/// The rest of the pipeline; cheap to clone. A stage runs it never (hit), once (route), many times (escalate), or from a
/// task that it spawned for several callers (batch, single-flight).
#[derive(Clone)]
pub struct Next {
    pipeline: Arc<Pipeline>,
    position: usize,
}

impl Next {
    /// Runs the next stage, or the upstream after the last one. Where the policy is strict, nobody is asked after a stage has
    /// failed, and what came before that is not handed on.
    pub async fn run(self, cx: &Context, request: Request) -> Result<Response> {
        cx.check()?;
        let started = Instant::now();
        let (name, result) = match self.pipeline.stages.get(self.position).cloned() {
            Some(stage) => {
                let next = Self { pipeline: Arc::clone(&self.pipeline), position: self.position + 1 };
                (stage.name(), stage.call(cx, request, next).await)
            }
            None => ("upstream", self.pipeline.upstream.call(cx, request).await),
        };
        let time = started.elapsed();
        cx.receipt.update(|facts| match facts.stages.iter_mut().find(|(known, _)| *known == name) {
            // Asked several times: what it took in all.
            Some((_, sum)) => *sum += time,
            None => facts.stages.insert(0, (name, time)),
        });
        cx.check()?;
        result
    }
}
