//! `sso.v1.Access`.

use sso_proto::{
    Reason,
    v1::{self, access_server::Access},
};
use tonic::{Request, Response, Status};

use super::{
    Handlers,
    convert::{cut, optional},
    entry::call_of,
};
use crate::{
    access::Action,
    error::Error,
    explain::{Explanation, Question, Step},
    model::{Account, ApplicationName, ExternalUser},
};

#[tonic::async_trait]
impl Access for Handlers {
    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::AccessExplain, &message.application, async {
            let explanation = self.house.explain.explain(&call, question(&message)?).await?;
            Ok(response(explanation))
        })
        .await
    }
}

fn question(message: &v1::ExplainRequest) -> Result<Question, Error> {
    let external_user = optional(&message.external_user, ExternalUser::parse)?;
    Ok(Question {
        account: Account::parse(&message.account)?,
        application: ApplicationName::parse(&message.application)?,
        action: action(&message.action)?,
        external_user,
    })
}

fn action(name: &str) -> Result<Option<Action>, Error> {
    if name.is_empty() {
        return Ok(None);
    }
    let found = Action::ALL.iter().copied().find(|action| action.as_str() == name);
    found.map(Some).ok_or_else(|| {
        let all: Vec<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
        let message =
            format!("there is no action \"{}\"; there are: {}", cut(name), all.join(", "));
        Error::new(Reason::InvalidRequest, message)
    })
}

fn response(explanation: Explanation) -> v1::ExplainResponse {
    let side = |side: fn(&crate::model::Mapping) -> String| {
        explanation.mapping.as_ref().map(side).unwrap_or_default()
    };
    v1::ExplainResponse {
        allowed: explanation.allowed(),
        mapping_account: side(|mapping| mapping.account.to_string()),
        external_user: side(|mapping| mapping.external_user.to_string()),
        account: explanation.account.as_str().to_owned(),
        application: explanation.application.as_str().to_owned(),
        action: explanation.action.as_str().to_owned(),
        groups: explanation.groups,
        steps: explanation.steps.into_iter().map(step).collect(),
        accounts_expected: explanation.accounts_expected.to_texts(),
        groups_unknown: explanation.groups_unknown,
    }
}

fn step(step: Step) -> v1::ExplainStep {
    let check = step.check.to_owned();
    match step.end {
        Ok(detail) => v1::ExplainStep { check, passed: true, detail, reason: String::new() },
        Err(error) => v1::ExplainStep {
            check,
            passed: false,
            detail: error.message,
            reason: error.reason.as_str().to_owned(),
        },
    }
}
