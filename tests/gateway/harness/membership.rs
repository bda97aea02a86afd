//! Which bots take part in a conversation on `web`, and who changes it.

use tonic::Status;
use turnwire::proto::v1;

use super::{Gateway, Wire, name, within};

impl Gateway {
    /// Adds a bot, from the present end.
    pub(crate) async fn adds(&self, conversation: &str, bot: &str) -> v1::AddBotResponse {
        let added = self.wire().adds(added_to(conversation, bot)).await;
        added.expect("it is added")
    }

    pub(crate) async fn removes(&self, conversation: &str, bot: &str) -> v1::RemoveBotResponse {
        let removed = self.wire().removes(removed_from(conversation, bot)).await;
        removed.expect("it is removed")
    }

    pub(crate) async fn hands_over(
        &self,
        conversation: &str,
        from: &str,
        to: &str,
    ) -> v1::HandOverResponse {
        let handed = self
            .wire()
            .hands_over(handover(conversation, from, to))
            .await;
        handed.expect("it is handed over")
    }

    /// The bots of a conversation.
    pub(crate) async fn bots_of(&self, conversation: &str) -> Vec<String> {
        self.conversation(conversation).await.bot_ids
    }

    /// The conversations of a bot.
    pub(crate) async fn listed_for(&self, bot: &str) -> Vec<String> {
        let filter = v1::list_conversations_request::Filter::BotId(bot.to_owned());
        let request = v1::ListConversationsRequest {
            filter: Some(filter),
            ..Default::default()
        };
        let mut client = self.wire().conversations();
        let listed = within("a list", client.list_conversations(request)).await;
        let listed = listed.expect("a list").into_inner().conversations;
        let names = listed.into_iter().filter_map(|found| found.name);
        names.map(|name| name.conversation_id).collect()
    }

    /// The ids of a conversation's members.
    pub(crate) async fn members_of(&self, conversation: &str) -> Vec<String> {
        let request = v1::ListMembersRequest {
            conversation: Some(name("web", conversation)),
            ..Default::default()
        };
        let mut client = self.wire().conversations();
        let members = within("members", client.list_members(request)).await;
        let members = members.expect("members").into_inner().members;
        members.into_iter().filter_map(|member| member.id).collect()
    }
}

impl Wire {
    pub(crate) async fn adds(
        &self,
        request: v1::AddBotRequest,
    ) -> Result<v1::AddBotResponse, Status> {
        let added = within("an addition", self.conversations().add_bot(request)).await?;
        Ok(added.into_inner())
    }

    pub(crate) async fn removes(
        &self,
        request: v1::RemoveBotRequest,
    ) -> Result<v1::RemoveBotResponse, Status> {
        let removed = within("a removal", self.conversations().remove_bot(request)).await?;
        Ok(removed.into_inner())
    }

    pub(crate) async fn hands_over(
        &self,
        request: v1::HandOverRequest,
    ) -> Result<v1::HandOverResponse, Status> {
        let handed = within("a hand-over", self.conversations().hand_over(request)).await?;
        Ok(handed.into_inner())
    }
}

/// Asks to add a bot.
pub(crate) fn added_to(conversation: &str, bot: &str) -> v1::AddBotRequest {
    v1::AddBotRequest {
        conversation: Some(name("web", conversation)),
        bot_id: bot.to_owned(),
        ..Default::default()
    }
}

/// Asks to remove a bot.
pub(crate) fn removed_from(conversation: &str, bot: &str) -> v1::RemoveBotRequest {
    v1::RemoveBotRequest {
        conversation: Some(name("web", conversation)),
        bot_id: bot.to_owned(),
        ..Default::default()
    }
}

/// Asks to hand a conversation over.
pub(crate) fn handover(conversation: &str, from: &str, to: &str) -> v1::HandOverRequest {
    v1::HandOverRequest {
        conversation: Some(name("web", conversation)),
        from_bot_id: from.to_owned(),
        to_bot_id: to.to_owned(),
        ..Default::default()
    }
}

/// What a delivery is: its text, or else its type with whom it is about.
pub(crate) fn kind_of(delivery: &v1::Delivery) -> String {
    let activity = delivery.activity.as_deref().expect("an activity");
    let mut what = activity.text.clone().unwrap_or_else(|| {
        let name = activity.name.clone();
        name.or_else(|| activity.r#type.clone()).unwrap_or_default()
    });
    for (sign, members) in [
        ('+', &activity.members_added),
        ('-', &activity.members_removed),
    ] {
        for member in members {
            what.push_str(&format!(" {sign}{}", member.id()));
        }
    }
    what
}
