//! Which JSON name is which field, for every message of `activity.proto`.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::{Map, Value as JsonValue};

use super::element::{descend, mismatch, open};
use super::{Json, Misfit, Problem};
use crate::proto::v1::{
    Activity, Attachment, CardAction, ChannelAccount, ConversationAccount, ConversationReference,
    MessageReaction, SemanticAction, SuggestedActions, TextHighlight,
};

/// Implements [`Json`] for a message. Its kind follows from the field's type; a field that is
/// missing here does not compile.
macro_rules! message {
    ($message:ident { $($name:literal = $field:ident,)* }) => {
        impl Json for $message {
            fn from_json(value: &JsonValue) -> Result<Self, Problem> {
                let members = value.as_object();
                let members = members.ok_or_else(|| mismatch("an object", value))?;
                let mut message = Self::default();
                let mut unknown = BTreeMap::new();
                for (name, value) in members {
                    let taken = match name.as_str() {
                        $($name => message.$field.take_json(value).unwrap_or(false),)*
                        _ => false,
                    };
                    if !taken {
                        unknown.insert(name.clone(), open(value));
                    }
                }
                if !unknown.is_empty() {
                    message.unknown_members = Some(Struct { fields: unknown });
                }
                Ok(message)
            }

            fn to_json(&self) -> JsonValue {
                let Self { $($field,)* unknown_members } = self;
                let mut members = Map::new();
                $(if let Some(value) = $field.give_json() {
                    members.insert($name.to_owned(), value);
                })*
                for (name, value) in unknown_members.iter().flat_map(|unknown| &unknown.fields) {
                    members
                        .entry(name.as_str())
                        .or_insert_with(|| value.to_json());
                }
                JsonValue::Object(members)
            }

            fn check(&self, room: usize) -> Result<(), Misfit> {
                let Self { $($field,)* unknown_members } = self;
                let room = descend(room, 1)?;
                $($field.check(room).map_err(|misfit| misfit.in_member($name))?;)*
                let Some(unknown) = unknown_members else {
                    return Ok(());
                };
                unknown.check(room).map_err(|misfit| misfit.in_member("unknown_members"))?;
                $(if let Some(value) = unknown.fields.get($name) {
                    $field.check_unknown(value).map_err(|misfit| misfit.in_member($name))?;
                })*
                Ok(())
            }
        }

        #[cfg(test)]
        impl super::generate::Generate for $message {
            fn documents() -> proptest::strategy::BoxedStrategy<JsonValue> {
                super::generate::object(vec![
                    $(($name, super::generate::member(|message: &Self| &message.$field)),)*
                ])
            }

            fn misfits() -> Option<proptest::strategy::BoxedStrategy<super::generate::Spoilt>> {
                Some(super::generate::spoilt_object(Self::documents(), vec![
                    $(($name, super::generate::spoilt_member(|message: &Self| &message.$field)),)*
                ]))
            }
        }
    };
}

message! {
    Activity {
        "type" = r#type,
        "id" = id,
        "timestamp" = timestamp,
        "localTimestamp" = local_timestamp,
        "localTimezone" = local_timezone,
        "callerId" = caller_id,
        "serviceUrl" = service_url,
        "channelId" = channel_id,
        "from" = from,
        "recipient" = recipient,
        "conversation" = conversation,
        "replyToId" = reply_to_id,
        "entities" = entities,
        "channelData" = channel_data,
        "deliveryMode" = delivery_mode,
        "text" = text,
        "textFormat" = text_format,
        "locale" = locale,
        "speak" = speak,
        "inputHint" = input_hint,
        "attachments" = attachments,
        "attachmentLayout" = attachment_layout,
        "summary" = summary,
        "suggestedActions" = suggested_actions,
        "value" = value,
        "valueType" = value_type,
        "expiration" = expiration,
        "importance" = importance,
        "listenFor" = listen_for,
        "semanticAction" = semantic_action,
        "textHighlights" = text_highlights,
        "name" = name,
        "label" = label,
        "relatesTo" = relates_to,
        "action" = action,
        "code" = code,
        "membersAdded" = members_added,
        "membersRemoved" = members_removed,
        "topicName" = topic_name,
        "historyDisclosed" = history_disclosed,
        "reactionsAdded" = reactions_added,
        "reactionsRemoved" = reactions_removed,
    }
}

message! {
    ChannelAccount {
        "id" = id,
        "name" = name,
        "aadObjectId" = aad_object_id,
        "role" = role,
        "tenantId" = tenant_id,
        "agenticUserId" = agentic_user_id,
        "agenticAppId" = agentic_app_id,
        "agenticAppBlueprintId" = agentic_app_blueprint_id,
        "properties" = properties,
        "objectId" = object_id,
        "givenName" = given_name,
        "surname" = surname,
        "email" = email,
        "userPrincipalName" = user_principal_name,
        "userRole" = user_role,
    }
}

message! {
    ConversationAccount {
        "id" = id,
        "name" = name,
        "isGroup" = is_group,
        "conversationType" = conversation_type,
        "tenantId" = tenant_id,
        "aadObjectId" = aad_object_id,
        "role" = role,
        "properties" = properties,
    }
}

message! {
    ConversationReference {
        "activityId" = activity_id,
        "user" = user,
        "bot" = bot,
        "conversation" = conversation,
        "channelId" = channel_id,
        "serviceUrl" = service_url,
        "locale" = locale,
        "deliveryMode" = delivery_mode,
    }
}

message! {
    Attachment {
        "contentType" = content_type,
        "contentUrl" = content_url,
        "content" = content,
        "name" = name,
        "thumbnailUrl" = thumbnail_url,
    }
}

message! {
    SuggestedActions {
        "to" = to,
        "actions" = actions,
    }
}

message! {
    CardAction {
        "type" = r#type,
        "title" = title,
        "image" = image,
        "imageAltText" = image_alt_text,
        "text" = text,
        "displayText" = display_text,
        "value" = value,
        "channelData" = channel_data,
    }
}

message! {
    MessageReaction {
        "type" = r#type,
    }
}

message! {
    TextHighlight {
        "text" = text,
        "occurrence" = occurrence,
    }
}

message! {
    SemanticAction {
        "id" = id,
        "state" = state,
        "entities" = entities,
    }
}

/// A field of a message: one value that may be absent, or a list.
trait Member: Default {
    /// Takes the value of the member. Says whether the field shows that: an empty list does not.
    ///
    /// # Errors
    ///
    /// The value, or an item of the list, has a wrong JSON type. Nothing is taken then.
    fn take_json(&mut self, value: &JsonValue) -> Result<bool, Misfit>;

    /// The value of the member, if the field is set.
    fn give_json(&self) -> Option<JsonValue>;

    /// See [`Json::check`].
    fn check(&self, room: usize) -> Result<(), Misfit>;

    /// Checks what `unknown_members` has under this member's name. Recurses as deep as the value.
    ///
    /// # Errors
    ///
    /// It is neither `null` nor an empty list: it has a wrong type, or belongs in the field.
    fn check_unknown(&self, value: &Value) -> Result<(), Misfit> {
        if let None | Some(Kind::NullValue(_)) = value.kind {
            return Ok(());
        }
        if Self::default().take_json(&value.to_json())? {
            return Err(Problem::Misplaced.into());
        }
        Ok(())
    }
}

impl<E: Json> Member for Option<E> {
    fn take_json(&mut self, value: &JsonValue) -> Result<bool, Misfit> {
        *self = Some(E::from_json(value)?);
        Ok(true)
    }

    fn give_json(&self) -> Option<JsonValue> {
        self.as_ref().map(E::to_json)
    }

    fn check(&self, room: usize) -> Result<(), Misfit> {
        self.as_ref().map_or(Ok(()), |value| value.check(room))
    }
}

impl<E: Json> Member for Vec<E> {
    fn take_json(&mut self, value: &JsonValue) -> Result<bool, Misfit> {
        let items = value.as_array();
        let items = items.ok_or_else(|| mismatch("an array", value))?;
        *self = items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                E::from_json(item).map_err(|problem| Misfit::from(problem).in_item(index))
            })
            .collect::<Result<_, _>>()?;
        Ok(!self.is_empty())
    }

    fn give_json(&self) -> Option<JsonValue> {
        (!self.is_empty()).then(|| self.iter().map(E::to_json).collect())
    }

    fn check(&self, room: usize) -> Result<(), Misfit> {
        self.iter()
            .enumerate()
            .try_for_each(|(index, item)| item.check(room).map_err(|misfit| misfit.in_item(index)))
    }
}
