//! Many mappings at once: sent in batches, refusals gathered, a summary at the end. `sso` and the tools
//! of the reference product send them here alike; each tells in its own way what became of them.

use indicatif::ProgressBar;
use serde::Serialize;
use sso_client::{ClientError, Mappings, NewMapping, Refusal, xml::Position};
use sso_core::exit::Exit;

use super::super::shown::or_dash;
use crate::{failure::Failure, output::Output};

/// Mappings in one request: few enough for an answer in time, and for a bar that moves.
const BATCH: usize = 500;

/// What is done with each mapping of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Verb {
    Create,
    Delete,
}

/// What is to be done with which mappings.
pub(in crate::commands) struct Batch<'m> {
    pub(in crate::commands) verb: Verb,
    pub(in crate::commands) dry_run: bool,
    pub(in crate::commands) mappings: &'m [NewMapping],
    /// Where each stands in a file; empty where there is none.
    pub(in crate::commands) positions: &'m [Position],
}

/// What became of them.
pub(in crate::commands) struct Outcome {
    pub(in crate::commands) done: usize,
    /// Each by its place among the mappings.
    pub(in crate::commands) refused: Vec<(usize, Refusal)>,
    /// Not tried, or with an unknown end, because of the failure.
    pub(in crate::commands) left: usize,
    failure: Option<Failure>,
}

impl Outcome {
    /// The end of the command: what stopped it, or that some were refused, which has been reported.
    pub(in crate::commands) fn end(self) -> Result<(), Failure> {
        match self.failure {
            Some(failure) => Err(failure),
            None if self.refused.is_empty() => Ok(()),
            None => Err(Failure::Reported(Exit::Refused.code())),
        }
    }
}

#[derive(Debug, Serialize)]
struct SummaryDocument<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<usize>,
    dry_run: bool,
    not_done: usize,
    refused: Vec<RefusedDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct RefusedDocument<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    application: &'a str,
    account: &'a str,
    external_user: &'a str,
    reason: &'a str,
    event: Option<u32>,
    message: &'a str,
}

impl Batch<'_> {
    /// Sends them all, and reports. The failure that is left is the exit code.
    pub(super) async fn run(&self, service: &Mappings, output: &Output) -> Result<(), Failure> {
        let bar = output.progress(self.mappings.len(), "mappings");
        let outcome = self.send(service, &bar).await;
        self.report(&outcome, output)?;
        outcome.end()
    }

    /// Sends them part by part. A refused one stops no other; an outage stops those behind it.
    pub(in crate::commands) async fn send(&self, service: &Mappings, bar: &ProgressBar) -> Outcome {
        let count = self.mappings.len();
        let mut outcome = Outcome { done: 0, refused: Vec::new(), left: 0, failure: None };
        for (number, part) in self.mappings.chunks(BATCH).enumerate() {
            let first = number * BATCH;
            match self.send_part(service, part).await {
                Ok((done, refused)) => {
                    outcome.done += done;
                    outcome
                        .refused
                        .extend(refused.into_iter().map(|(index, why)| (first + index, why)));
                }
                Err(error) => {
                    outcome.failure = Some(error.into());
                    outcome.left = count - first;
                    break;
                }
            }
            bar.inc(u64::try_from(part.len()).unwrap_or_default());
        }
        bar.finish_and_clear();
        outcome
    }

    async fn send_part(
        &self,
        service: &Mappings,
        part: &[NewMapping],
    ) -> Result<(usize, Vec<(usize, Refusal)>), ClientError> {
        let outcome = match self.verb {
            Verb::Create => service.create_batch(part, self.dry_run).await?,
            Verb::Delete => service.delete_batch(part, self.dry_run).await?,
        };
        Ok((usize::try_from(outcome.done).unwrap_or_default(), outcome.refused))
    }

    fn report(&self, outcome: &Outcome, output: &Output) -> Result<(), Failure> {
        let refused: Vec<_> = outcome
            .refused
            .iter()
            .filter_map(|(index, refusal)| self.refused(*index, refusal))
            .collect();
        let rows: Vec<_> = refused
            .iter()
            .map(|one| {
                vec![
                    one.line.map_or_else(|| "-".to_owned(), |line| line.to_string()),
                    one.application.to_owned(),
                    or_dash(one.account),
                    one.external_user.to_owned(),
                    one.reason.to_owned(),
                    one.message.to_owned(),
                ]
            })
            .collect();
        let of = |verb| (self.verb == verb).then_some(outcome.done);
        let document = SummaryDocument {
            created: of(Verb::Create),
            deleted: of(Verb::Delete),
            dry_run: self.dry_run,
            not_done: outcome.left,
            refused,
        };
        output.document(&document, |output| {
            if !rows.is_empty() {
                let header =
                    ["LINE", "APPLICATION", "ACCOUNT", "EXTERNAL USER", "REASON", "MESSAGE"];
                output.table(&header, rows)?;
                output.line("")?;
            }
            output.line(&self.summary(outcome))
        })
    }

    fn refused<'a>(&'a self, index: usize, refusal: &'a Refusal) -> Option<RefusedDocument<'a>> {
        let mapping = self.mappings.get(index)?;
        Some(RefusedDocument {
            line: self.positions.get(index).map(|position| position.line),
            application: &mapping.application,
            account: &mapping.account,
            external_user: &mapping.external_user,
            reason: &refusal.reason,
            event: refusal.event,
            message: &refusal.message,
        })
    }

    fn summary(&self, outcome: &Outcome) -> String {
        let done = match (self.verb, self.dry_run) {
            (Verb::Create, false) => "created",
            (Verb::Delete, false) => "deleted",
            (Verb::Create, true) => "would be created",
            (Verb::Delete, true) => "would be deleted",
        };
        let mut text = format!("{} {done}, {} refused", outcome.done, outcome.refused.len());
        if outcome.left > 0 {
            text.push_str(&format!(", {} not done", outcome.left));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_everything() {
        let batch = Batch { verb: Verb::Create, dry_run: true, mappings: &[], positions: &[] };
        let mut outcome = Outcome { done: 3, refused: Vec::new(), left: 0, failure: None };
        assert_eq!(batch.summary(&outcome), "3 would be created, 0 refused");
        outcome.left = 500;
        let batch = Batch { verb: Verb::Delete, dry_run: false, ..batch };
        assert_eq!(batch.summary(&outcome), "3 deleted, 0 refused, 500 not done");
    }
}
