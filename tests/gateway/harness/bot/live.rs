//! What bots show and are told now or never.

use std::future::Future;

use turnwire::proto::v1;
use turnwire::proto::v1::partial::Content;
use turnwire::proto::v1::subscribe_request::Frame as Asked;
use turnwire::proto::v1::subscribe_response::Frame;

use super::super::{name, typing};
use super::Bot;

impl Bot {
    /// The next that is ephemeral.
    pub(crate) async fn ephemeral(&mut self) -> v1::Ephemeral {
        let ephemeral = |frame: &Frame| match frame {
            Frame::Ephemeral(ephemeral) => Some(ephemeral.clone()),
            _ => None,
        };
        self.next("something ephemeral", ephemeral).await
    }

    /// The next Cancel must be of this stream, for this reason.
    #[track_caller]
    pub(crate) fn expect_cancel<'a>(
        &'a mut self,
        delivery: &'a v1::Delivery,
        stream: u32,
        reason: v1::CancelReason,
    ) -> impl Future<Output = ()> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let cancel = |frame: &Frame| match frame {
                Frame::Cancel(cancel) => Some(*cancel),
                _ => None,
            };
            let got = self.next("a Cancel", cancel).await;
            let wanted = v1::Cancel {
                delivery_id: delivery.delivery_id,
                stream,
                reason: reason.into(),
            };
            assert_eq!(got, wanted, "at {place}");
        }
    }

    /// Checks that nothing ephemeral came, and no Cancel, that a test has not taken.
    #[track_caller]
    pub(crate) fn expect_quiet(&mut self) -> impl Future<Output = ()> + '_ {
        let place = std::panic::Location::caller();
        async move {
            self.barrier().await;
            let is_one = |frame: &&Frame| matches!(frame, Frame::Ephemeral(_) | Frame::Cancel(_));
            let more = self.pending.iter().find(is_one);
            assert!(more.is_none(), "at {place}: {more:?}");
        }
    }

    /// Sends a piece of a reply.
    pub(crate) fn write_piece(&self, delivery: &v1::Delivery, stream: u32, content: Content) {
        self.write(Asked::Partial(v1::Partial {
            delivery_id: delivery.delivery_id,
            stream,
            content: Some(content),
        }));
    }

    /// Adds to the text of a reply, and waits until the gateway has it.
    pub(crate) async fn streams(&mut self, delivery: &v1::Delivery, text: &str) {
        self.write_piece(delivery, 0, Content::Append(text.to_owned()));
        self.barrier().await;
    }

    /// Shows that it is typing.
    pub(crate) fn types(&self, channel: &str, conversation: &str) {
        self.write(Asked::Ephemeral(v1::BotEphemeral {
            conversation: Some(name(channel, conversation)),
            delivery_id: 0,
            activity: Some(typing().into()),
        }));
    }
}
