//! Beginning conversations: the channel's adapter is asked, and what it answers is written.
//!
//! A request is in the air only here, in memory. What survives is its result, under its key: so a caller
//! that was not answered repeats it, and the adapter is asked again under the same name.

mod requests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::activity::{self, Draft, Kind, validate};
use crate::engine::Engine;
use crate::engine::command::Command;
use crate::engine::error::Error;
use crate::engine::session::{self, Appended, Event, Subscriber};
use crate::id::{BotId, ChannelId, ConversationId, ConversationKey, ConversationNumber, Sequence};
use crate::proto::v1;
use crate::store::keys::{self, Key, OnceDigest};
use crate::store::record;

pub(super) use requests::Creations;

/// Results of creations are kept beside those of appends, as if they were of a conversation that no
/// shard ever numbers.
const NO_CONVERSATION: ConversationNumber = ConversationNumber(0);

/// A conversation that a bot wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// On which channel.
    pub channel: ChannelId,
    /// Which bot.
    pub bot: BotId,
    /// Makes repeating safe.
    pub request_id: Option<String>,
    /// What the adapter is asked, but for the request's name and the bot's account.
    pub asked: v1::CreateConversation,
    /// What the bot says first.
    pub activity: Option<Box<v1::Activity>>,
}

/// A conversation that has begun, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The conversation.
    pub conversation: ConversationKey,
    /// Where the bot's first activity was appended, if it was given one.
    pub appended: Option<Appended>,
    /// This is the result of an earlier request with the same id.
    pub repeated: bool,
    /// The gateway knew it before.
    pub existed: bool,
}

/// What an adapter answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The conversation has begun, or had before.
    Created(Box<v1::Created>),
    /// The channel will not begin it, and why.
    Refused(String),
    /// The channel cannot begin it now; try again after this, if it says.
    Retry(Option<Duration>),
}

/// What a shard is to write.
#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) room: super::command::Room,
    pub(crate) conversation: ConversationKey,
    pub(crate) bot: BotId,
    pub(crate) is_group: bool,
    /// Says who joined; starts the conversation.
    pub(crate) update: Draft,
    /// What the bot says first.
    pub(crate) first: Option<Draft>,
    /// Under which key the result is kept, and the hash of what was asked for.
    pub(crate) once: Option<(OnceDigest, [u8; 32])>,
    pub(crate) reply: oneshot::Sender<Result<Created, Error>>,
}

impl Engine {
    /// Begins a conversation: asks an adapter of the channel, and writes what it answers.
    ///
    /// # Errors
    ///
    /// [`Error::ChannelUnknown`], [`Error::BotUnknown`], [`Error::Activity`],
    /// [`Error::TooManyCreations`], [`Error::CapabilityMissing`], [`Error::GroupsUnsupported`],
    /// [`Error::AdapterAbsent`], [`Error::CreationMismatch`], [`Error::CreationRefused`],
    /// [`Error::CreationDeferred`], [`Error::BotAbsent`], [`Error::StoreFull`],
    /// [`Error::StoreFailed`], [`Error::ShuttingDown`]: nothing was written, unless the store failed.
    /// [`Error::AdapterLost`], [`Error::CreationTimeout`]: nothing was written, and the channel may have
    /// begun it.
    pub async fn create_conversation(&self, wanted: Wanted) -> Result<Created, Error> {
        let limit = self.limits().creations;
        let place = self.inner.creations.place();
        let place = place.ok_or(Error::TooManyCreations { limit })?;
        let engine = self.clone();
        // On a task of its own: when the caller goes away, what the adapter begins is still written, and
        // a repetition finds it. Only so is there never more than one at work on a name.
        let creation = tokio::spawn(async move {
            let _place = place;
            engine.create(wanted).await
        });
        // It ends early only with the runtime.
        creation.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Brings an adapter's answer to who waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::CreationUnknown`] when nobody does.
    pub(super) fn answer_creation(
        &self,
        session: session::Number,
        name: String,
        answer: Answer,
    ) -> Result<(), Error> {
        if self.inner.creations.answer(session, name, answer) {
            return Ok(());
        }
        Err(Error::CreationUnknown)
    }

    async fn create(&self, wanted: Wanted) -> Result<Created, Error> {
        let settings = self.settings().get();
        let unknown = || Error::ChannelUnknown(wanted.channel.clone());
        let channel = settings.channels.get(&wanted.channel).ok_or_else(unknown)?;
        let unknown = || Error::BotUnknown(wanted.bot.clone());
        let bot = settings.bots.get(&wanted.bot).ok_or_else(unknown)?;
        let Wanted {
            channel: channel_id,
            bot: bot_id,
            request_id,
            asked,
            mut activity,
        } = wanted;
        let activity = activity.as_deref_mut();
        let first = activity.map(|activity| activity::outbound(activity, &self.limits()));
        let first = first.transpose()?;
        // What is wrong with it is said before anyone is asked.
        let sample = update(&asked, &v1::Created::default(), channel.service_url.clone());
        validate::inbound(&sample, &self.limits()).map_err(Error::from)?;

        let once = request_id.map(|key| {
            let scope = format!("{channel_id}\0{bot_id}");
            let digest = OnceDigest::new(NO_CONVERSATION, &scope, &key);
            (digest, payload_hash(&asked, first.as_ref()), key)
        });
        let name = match &once {
            Some((digest, ..)) => hex(&digest.0),
            // Longer than any digest, so that the two never meet.
            None => format!("{:032x}", self.random().random::<u128>()),
        };
        let _claim = self.inner.creations.claim(&channel_id, &name).await;
        if let Some((digest, hash, key)) = &once
            && let Some(created) = self.created_before(&channel_id, *digest, hash, key)?
        {
            return Ok(created);
        }
        if !self.can(&channel_id, |all| all.create) {
            return Err(Error::CapabilityMissing {
                channel: channel_id,
                capability: "create",
            });
        }
        if asked.is_group && !self.can(&channel_id, |all| all.groups) {
            return Err(Error::GroupsUnsupported(channel_id));
        }
        let frame = v1::CreateConversation {
            bot: Some(bot.account.clone()),
            ..asked.clone()
        };
        let created = match self.ask(&channel_id, &name, frame).await? {
            Answer::Created(created) => created,
            Answer::Refused(reason) => {
                return Err(Error::CreationRefused {
                    channel: channel_id,
                    reason,
                });
            }
            Answer::Retry(delay) => {
                return Err(Error::CreationDeferred {
                    channel: channel_id,
                    delay,
                });
            }
        };
        let mut update = update(&asked, &created, channel.service_url.clone());
        let draft = activity::inbound(&mut update, &self.limits())?;
        let account = draft.conversation.as_ref();
        let id = account.and_then(|account| account.id.as_deref());
        let conversation = ConversationKey {
            channel: channel_id,
            conversation: ConversationId::from(id.unwrap_or_default()),
        };
        let is_group = account.and_then(|account| account.is_group) == Some(true);
        let drafts: Vec<_> = std::iter::once(&draft).chain(&first).cloned().collect();
        let shard = self.shard(&conversation);
        let (reply, result) = oneshot::channel();
        let create = Create {
            room: self
                .room(drafts.iter().map(|draft| draft.body().len()).sum())
                .await,
            conversation,
            bot: bot_id,
            is_group,
            update: draft,
            first,
            once: once.map(|(digest, hash, _)| (digest, hash)),
            reply,
        };
        self.command(shard, Command::Create(Box::new(create)))
            .await?;
        result.await.map_err(|_| Error::ShuttingDown)?
    }

    /// The result of an earlier request with the same key. It is in the store, since whoever worked on
    /// the name before has ended.
    fn created_before(
        &self,
        channel: &ChannelId,
        digest: OnceDigest,
        hash: &[u8; 32],
        key: &str,
    ) -> Result<Option<Created>, Error> {
        let retention = self.limits().idempotency_retention.as_millis().max(1) as u64;
        let now = keys::generation(self.clock().now(), retention);
        for generation in [now, now.saturating_sub(1)] {
            let stored_at = Key::Idempotency { generation, digest };
            let Some(stored) = self.store().get(&stored_at)? else {
                continue;
            };
            let stored = record::decode_idempotency(&stored_at, stored)?;
            if stored.payload_hash != hash[..] {
                let key = key.to_owned();
                return Err(Error::CreationMismatch { key });
            }
            let appended = (stored.sequence != 0).then(|| Appended {
                activity_id: stored.activity_id.into(),
                sequence: Sequence(stored.sequence),
                repeated: true,
            });
            return Ok(Some(Created {
                conversation: ConversationKey {
                    channel: channel.clone(),
                    conversation: ConversationId::from(stored.conversation_id),
                },
                appended,
                repeated: true,
                existed: false,
            }));
        }
        Ok(None)
    }

    /// Asks an adapter, and waits for what it says.
    async fn ask(
        &self,
        channel: &ChannelId,
        name: &str,
        frame: v1::CreateConversation,
    ) -> Result<Answer, Error> {
        let creations = &self.inner.creations;
        let subscriber = Subscriber::Egress(channel.clone());
        let (session, answered) = {
            // Under this lock, so that the adapter cannot go between being found and being noted.
            let sessions = self.sessions();
            let attached = { sessions.iter() }.filter(|((of, _), _)| *of == subscriber);
            // The same one for the same request, as long as the same ones are attached.
            let chosen = attached.max_by_key(|((_, instance), _)| {
                let mut hasher = DefaultHasher::new();
                (instance, name).hash(&mut hasher);
                (hasher.finish(), instance.clone())
            });
            let absent = || Error::AdapterAbsent(channel.clone());
            let (_, session) = chosen.ok_or_else(absent)?;
            let answered = creations.ask(session.number, name);
            (Arc::clone(session), answered.ok_or(Error::ShuttingDown)?)
        };
        session.tell(Event::Create(Box::new(v1::CreateConversation {
            request_id: name.to_owned(),
            ..frame
        })));
        let timeout = self.limits().creation_timeout;
        let until = self.clock().now().after(timeout);
        let answer = tokio::select! {
            biased;
            answer = answered => match answer {
                Ok(answer) => Ok(answer),
                Err(_) if creations.has_ended() => Err(Error::ShuttingDown),
                Err(_) => Err(Error::AdapterLost(channel.clone())),
            },
            () = self.clock().sleep_until(until) => Err(Error::CreationTimeout {
                channel: channel.clone(),
                timeout,
            }),
        };
        creations.forget(session.number, name);
        answer
    }

    /// Whether a channel can do something, by its configuration or by what its adapter declared.
    fn can(
        &self,
        channel: &ChannelId,
        capability: impl Fn(&v1::ChannelCapabilities) -> bool,
    ) -> bool {
        let settings = self.settings().look();
        let configured = settings.channels.get(channel);
        configured.is_some_and(|channel| capability(&channel.capabilities)) || {
            self.inner.shared.declared()
        }
        .get(channel)
        .is_some_and(capability)
    }
}

/// The activity that begins the conversation: who is in it, as the channel says, or else as was asked.
fn update(
    asked: &v1::CreateConversation,
    created: &v1::Created,
    configured: Option<String>,
) -> Box<v1::Activity> {
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut conversation = created.conversation.clone().unwrap_or_else(|| {
        // Of a sample that is only checked.
        let id = Some("-".to_owned());
        v1::ConversationAccount {
            id,
            ..Default::default()
        }
    });
    let is_group = asked.is_group || conversation.is_group == Some(true);
    conversation.is_group = is_group.then_some(true);
    conversation.name = conversation.name.or_else(|| said(&asked.topic_name));
    conversation.tenant_id = conversation.tenant_id.or_else(|| said(&asked.tenant_id));
    let members = if created.members.is_empty() {
        &asked.members
    } else {
        &created.members
    };
    Box::new(v1::Activity {
        r#type: Some(Kind::ConversationUpdate.as_str().to_owned()),
        from: members.first().cloned(),
        conversation: Some(conversation),
        members_added: members.clone(),
        topic_name: said(&asked.topic_name),
        channel_data: asked.channel_data.clone(),
        service_url: said(&created.service_url).or(configured),
        ..Default::default()
    })
}

/// SHA-256 over all that was asked for.
fn payload_hash(asked: &v1::CreateConversation, first: Option<&Draft>) -> [u8; 32] {
    let asked = record::encode(asked);
    Sha256::new()
        // The length keeps apart what would run together.
        .chain_update((asked.len() as u64).to_be_bytes())
        .chain_update(&asked)
        .chain_update(first.map_or([0; 32], Draft::payload_hash))
        .finalize()
        .into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_channel_does_not_say_is_taken_from_the_request() {
        let account = |id: &str| v1::ChannelAccount {
            id: Some(id.to_owned()),
            ..Default::default()
        };
        let asked = v1::CreateConversation {
            members: vec![account("ann"), account("bob")],
            is_group: true,
            topic_name: "tea".to_owned(),
            tenant_id: "t".to_owned(),
            ..Default::default()
        };
        let conversation = v1::ConversationAccount {
            id: Some("c".to_owned()),
            tenant_id: Some("theirs".to_owned()),
            ..Default::default()
        };
        let mut created = v1::Created {
            conversation: Some(conversation),
            ..Default::default()
        };
        let update_of = |created: &v1::Created| update(&asked, created, Some("https://c/".into()));
        let made = update_of(&created);
        let place = made.conversation.expect("a place");
        assert_eq!(place.id.as_deref(), Some("c"));
        assert_eq!(place.name.as_deref(), Some("tea"));
        assert_eq!(place.tenant_id.as_deref(), Some("theirs"));
        assert_eq!(place.is_group, Some(true));
        assert_eq!(made.members_added, asked.members);
        assert_eq!(made.from, Some(account("ann")));
        assert_eq!(made.service_url.as_deref(), Some("https://c/"));
        created.members = vec![account("ann@theirs")];
        created.service_url = "https://t/".to_owned();
        let made = update_of(&created);
        assert_eq!(made.members_added, created.members);
        assert_eq!(made.service_url.as_deref(), Some("https://t/"));
    }
}
