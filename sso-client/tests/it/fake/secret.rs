//! A master secret server that does what a test tells it.

use std::sync::Mutex;

use sso_client::v1::{self, secret_server::Secret};
use sso_proto::{Reason, Refusal};
use tonic::{Request, Response, Status};

use super::Service;

/// What happened, and what is to happen.
#[derive(Default)]
pub(crate) struct Master {
    /// Calls in the order in which they came, in words.
    pub(crate) calls: Mutex<Vec<String>>,
    /// The status of the first call, then of the second, …; the last one stays.
    pub(crate) statuses: Mutex<Vec<v1::GetSecretStatusResponse>>,
    /// Backups do not open.
    pub(crate) wrong: Mutex<bool>,
    /// Opening a backup does not give the new generation back.
    pub(crate) incomplete: Mutex<bool>,
    /// The refusal of everything else.
    pub(crate) refuse: Mutex<Option<Reason>>,
}

impl Master {
    pub(crate) fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    fn answer<T>(&self, call: impl Into<String>, answer: T) -> Result<Response<T>, Status> {
        self.note(call);
        match *self.refuse.lock().unwrap() {
            Some(reason) => Err(Refusal::new(reason, "refused by the test").into_status()),
            None => Ok(Response::new(answer)),
        }
    }
}

fn shares(locks: Option<v1::BackupLocks>) -> Vec<String> {
    (1..=locks.unwrap_or_default().shares).map(|number| format!("sso-share-1:{number}")).collect()
}

const DOCUMENT: &str = r#"{"format":"sso-backup","version":2,"header":{"reminder":"which animal?",
    "backup":"00000000-0000-0000-0000-000000000009","locks":[{"kind":"password"}]}}"#;

fn opened_with(opener: Option<&v1::BackupOpener>) -> String {
    let Some(opener) = opener else { return "nothing".to_owned() };
    match (opener.password.as_str(), opener.backup_key.len(), opener.shares.len()) {
        ("", 0, shares) => format!("{shares} shares"),
        ("", bytes, 0) => format!("{bytes} bytes"),
        (_, 0, 0) => "password".to_owned(),
        _ => "too much".to_owned(),
    }
}

#[tonic::async_trait]
impl Secret for Service {
    async fn get_status(
        &self,
        _: Request<v1::GetSecretStatusRequest>,
    ) -> Result<Response<v1::GetSecretStatusResponse>, Status> {
        let status = {
            let mut statuses = self.state.secret.statuses.lock().unwrap();
            match statuses.len() {
                0 => v1::GetSecretStatusResponse::default(),
                1 => statuses[0].clone(),
                _ => statuses.remove(0),
            }
        };
        self.state.secret.answer("status", status)
    }

    async fn reload_tls(
        &self,
        _: Request<v1::ReloadTlsRequest>,
    ) -> Result<Response<v1::ReloadTlsResponse>, Status> {
        let answer = v1::ReloadTlsResponse { name: "m".into(), tls: Some(super::tls_status()) };
        self.state.secret.answer("reload tls", answer)
    }

    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareResponse>, Status> {
        let (mut answer, locks) = (v1::PrepareResponse::default(), request.into_inner().locks);
        (answer.generation, answer.fingerprint) = (2, "f2".into());
        (answer.document, answer.shares) = (DOCUMENT.into(), shares(locks));
        self.state.secret.answer("prepare", answer)
    }

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<v1::BackupResponse>, Status> {
        let mut answer = v1::BackupResponse::default();
        (answer.document, answer.shares) = (DOCUMENT.into(), shares(request.into_inner().locks));
        self.state.secret.answer("backup", answer)
    }

    async fn verify_backup(
        &self,
        request: Request<v1::VerifyBackupRequest>,
    ) -> Result<Response<v1::VerifyBackupResponse>, Status> {
        let request = request.into_inner();
        let call = format!("verify with {}", opened_with(request.opener.as_ref()));
        if *self.state.secret.wrong.lock().unwrap() {
            self.state.secret.note(call);
            return Err(Refusal::new(Reason::BackupPasswordWrong, "wrong").into_status());
        }
        assert_eq!(request.document, DOCUMENT);
        let one = |generation, fingerprint: &str| v1::BackupGeneration {
            generation,
            fingerprint: fingerprint.into(),
            in_keystore: true,
        };
        let mut generations = vec![one(1, "f1"), one(2, "f2")];
        if *self.state.secret.incomplete.lock().unwrap() {
            generations.pop();
        }
        let sealed = request.recipient_key.iter().map(|_| 1).collect();
        let answer = v1::VerifyBackupResponse {
            generations,
            sealed,
            missing: vec![3],
            ..Default::default()
        };
        self.state.secret.answer(call, answer)
    }

    async fn rotate(
        &self,
        request: Request<v1::RotateRequest>,
    ) -> Result<Response<v1::RotateResponse>, Status> {
        let v1::RotateRequest { generation, leave_behind, .. } = request.into_inner();
        let waiting_for = vec!["sso-server-2: not there".to_owned()];
        let answer = v1::RotateResponse { waiting_for, active: false };
        self.state.secret.answer(format!("rotate {generation} without {leave_behind:?}"), answer)
    }

    async fn retire(
        &self,
        request: Request<v1::RetireRequest>,
    ) -> Result<Response<v1::RetireResponse>, Status> {
        let call = format!("retire {}", request.into_inner().generation);
        self.state.secret.answer(call, v1::RetireResponse {})
    }

    async fn destroy(
        &self,
        request: Request<v1::DestroyRequest>,
    ) -> Result<Response<v1::DestroyResponse>, Status> {
        let v1::DestroyRequest { generation, fingerprint } = request.into_inner();
        let call = format!("destroy {generation} {fingerprint}");
        self.state.secret.answer(call, v1::DestroyResponse {})
    }

    async fn restore(
        &self,
        request: Request<v1::RestoreRequest>,
    ) -> Result<Response<v1::RestoreResponse>, Status> {
        let call = format!("restore with {}", opened_with(request.into_inner().opener.as_ref()));
        let kept_aside = "/var/lib/keystore.json.aside".to_owned();
        self.state.secret.answer(call, v1::RestoreResponse { generations: vec![2], kept_aside })
    }

    async fn promote(
        &self,
        request: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::PromoteResponse>, Status> {
        let call = format!("promote {}", request.into_inner().force);
        self.state.secret.answer(call, v1::PromoteResponse { epoch: 5 })
    }

    async fn revoke_server(
        &self,
        request: Request<v1::RevokeServerRequest>,
    ) -> Result<Response<v1::RevokeServerResponse>, Status> {
        let call = format!("revoke {}", request.into_inner().name);
        let answer = v1::RevokeServerResponse { told: true, ..Default::default() };
        self.state.secret.answer(call, answer)
    }

    async fn readmit_server(
        &self,
        request: Request<v1::ReadmitServerRequest>,
    ) -> Result<Response<v1::ReadmitServerResponse>, Status> {
        let call = format!("readmit {}", request.into_inner().name);
        self.state.secret.answer(call, v1::ReadmitServerResponse {})
    }
}
