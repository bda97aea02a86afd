//! State documents, as tests write and read them: each says one number.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Status;
use turnwire::proto::v1;

use super::{Gateway, within};

/// What a document says.
pub(crate) fn content(number: f64) -> Struct {
    Struct {
        fields: [("n".to_owned(), number.into())].into(),
    }
}

/// A write to a document.
pub(crate) fn put(scope: &v1::StateScope, name: &str, number: f64) -> v1::StateWrite {
    v1::StateWrite::put(scope.clone(), name, content(number))
}

impl Gateway {
    /// A document of `echo`.
    pub(crate) async fn document(
        &self,
        scope: &v1::StateScope,
        name: &str,
    ) -> Result<v1::StateDocument, Status> {
        let request = v1::GetStateRequest {
            bot_id: "echo".to_owned(),
            scope: Some(scope.clone()),
            name: name.to_owned(),
        };
        let got = within("a document", self.wire().state().get_state(request)).await?;
        Ok(got.into_inner().document.expect("a document"))
    }

    /// What a document of `echo` says; `None` when there is none.
    pub(crate) async fn number(&self, scope: &v1::StateScope, name: &str) -> Option<f64> {
        let document = match self.document(scope, name).await {
            Ok(document) => document,
            Err(status) if status.code() == tonic::Code::NotFound => return None,
            Err(status) => panic!("{status:?}"),
        };
        let content = document.content.expect("it says something");
        match content.fields.get("n") {
            Some(Value {
                kind: Some(Kind::NumberValue(number)),
            }) => Some(*number),
            other => panic!("no number but {other:?}"),
        }
    }

    /// Writes a document of `echo` in a call of its own.
    pub(crate) async fn try_put(&self, write: v1::StateWrite) -> Result<String, Status> {
        use v1::put_state_request::Condition;
        use v1::state_write::{Change, Condition as Asked};
        let request = v1::PutStateRequest {
            bot_id: "echo".to_owned(),
            scope: write.scope,
            name: write.name,
            content: write.change.map(|change| match change {
                Change::Put(content) => content,
                Change::Delete(_) => panic!("a deletion is another call"),
            }),
            condition: write.condition.map(|condition| match condition {
                Asked::IfMatch(etag) => Condition::IfMatch(etag),
                Asked::IfAbsent(absent) => Condition::IfAbsent(absent),
            }),
        };
        let put = within("a write", self.wire().state().put_state(request)).await?;
        Ok(put.into_inner().etag)
    }

    /// Writes what must be taken, and returns the etag.
    pub(crate) async fn puts(&self, write: v1::StateWrite) -> String {
        self.try_put(write).await.expect("it is written")
    }

    /// Removes a document of `echo`.
    pub(crate) async fn try_delete(
        &self,
        scope: &v1::StateScope,
        name: &str,
        if_match: Option<&str>,
    ) -> Result<(), Status> {
        let request = v1::DeleteStateRequest {
            bot_id: "echo".to_owned(),
            scope: Some(scope.clone()),
            name: name.to_owned(),
            if_match: if_match.map(str::to_owned),
        };
        let deleted = within("a deletion", self.wire().state().delete_state(request)).await;
        deleted.map(drop)
    }
}
