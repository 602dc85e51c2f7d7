//! Who writes down what was decided, for as long as the run lasts.

use std::sync::Arc;

use crate::access_log::AccessLog;
use crate::config::{Config, Problems};
use crate::pool::Pools;
#[cfg(feature = "otlp")]
use crate::traces::Traces;

/// The access log and the traces, where they are wanted.
#[derive(Debug)]
pub struct Watchers {
    access_log: Option<AccessLog>,
    #[cfg(feature = "otlp")]
    traces: Option<Traces>,
}

impl Watchers {
    /// # Errors
    /// When the log's file cannot be opened, or a thread is not to be had.
    pub fn start(config: &Config, pools: &Arc<Pools>) -> Result<Self, Problems> {
        let access_log = config.access_log().map(|settings| {
            AccessLog::start(&settings, pools)
                .map_err(|error| Problems::one("access-log", format!("{}: {error}", settings.path.display())))
        });
        #[cfg(feature = "otlp")]
        let traces = {
            let problem = |error: String| Problems::one("otlp-endpoint", error);
            let start = |settings| Traces::start(settings, pools).map_err(|error| problem(error.to_string()));
            config.traces().map_err(problem)?.map(start).transpose()?
        };
        Ok(Self {
            access_log: access_log.transpose()?,
            #[cfg(feature = "otlp")]
            traces,
        })
    }

    /// The access log's file may have been moved.
    pub fn reopen(&self) {
        self.access_log.iter().for_each(AccessLog::reopen);
    }

    /// Sends the traces there are, and makes no more. Whoever has connections does not wait for a collector.
    pub async fn end_traces(&mut self) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces.take() {
            // It comes to nothing only when the program ends.
            let _ = tokio::task::spawn_blocking(|| traces.close()).await;
        }
    }

    /// Writes and sends what there is, and no more; waits for that, but not for long.
    pub fn close(&mut self) {
        self.access_log.take().into_iter().for_each(AccessLog::close);
        #[cfg(feature = "otlp")]
        self.traces.take().into_iter().for_each(Traces::close);
    }

    /// Begins anew after it was closed, or some of it.
    pub fn restart(&mut self, config: &Config, pools: &Arc<Pools>) {
        self.close();
        match Self::start(config, pools) {
            Ok(again) => *self = again,
            Err(problems) => tracing::error!(%problems, "decisions are not written down any more"),
        }
    }
}
