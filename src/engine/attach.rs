//! Sessions as the engine sees them: who is attached, who may come back, and who took over.

use std::sync::Arc;

use rand::RngExt;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tracing::info;

use crate::engine::command::{self, Command};
use crate::engine::error::Error;
use crate::engine::session::{Events, Identity, Number, Resumable, Session, Subscriber};
use crate::engine::terms::{Resume, Resumed, Terms};
use crate::engine::{Engine, Link};
use crate::id::{BotId, ChannelId, DeliveryId};
use crate::proto::v1;

/// An open session.
pub struct Opening {
    /// What its stream holds of the engine.
    pub link: Link,
    /// What its stream is told.
    pub events: Events,
    /// What became of an earlier one, if it was to go on.
    pub resumed: Resumed,
}

impl Engine {
    /// Attaches a session of a bot: a new one, or one that goes on.
    ///
    /// # Errors
    ///
    /// [`Error::BotUnknown`], [`Error::CreditOutOfRange`], [`Error::TooManySessions`],
    /// [`Error::ShuttingDown`].
    pub async fn attach_bot(&self, bot: &BotId, terms: Terms) -> Result<Opening, Error> {
        self.attach(Subscriber::Bot(bot.clone()), terms).await
    }

    /// Attaches an adapter to its channel, and notes what it declares the channel can do, if it
    /// declares anything.
    ///
    /// # Errors
    ///
    /// [`Error::ChannelUnknown`], [`Error::CreditOutOfRange`], [`Error::TooManySessions`],
    /// [`Error::ShuttingDown`].
    pub async fn attach_channel(
        &self,
        channel: &ChannelId,
        terms: Terms,
        capabilities: Option<v1::ChannelCapabilities>,
    ) -> Result<Opening, Error> {
        let subscriber = Subscriber::Egress(channel.clone());
        let attached = self.attach(subscriber, terms).await?;
        if let Some(capabilities) = capabilities {
            let mut declared = self.inner.shared.declared();
            declared.insert(channel.clone(), capabilities);
        }
        Ok(attached)
    }

    async fn attach(&self, subscriber: Subscriber, terms: Terms) -> Result<Opening, Error> {
        if self.is_draining() {
            return Err(Error::ShuttingDown);
        }
        self.check_known(&subscriber)?;
        let asked = terms.resume.as_ref();
        let (session, events, old, goes_on) = {
            let mut sessions = self.sessions();
            // Once more: what is no longer known when all that is not known is ended must not be here.
            self.check_known(&subscriber)?;
            let key = (subscriber.clone(), terms.instance.clone());
            let old = sessions.get(&key).cloned();
            let resumed = old.as_ref().filter(|old| may_resume(old, asked));
            let goes_on = resumed.is_some();
            let identity = self.identity(subscriber, asked, resumed.map(|old| &**old));
            let (session, events) = Session::new(identity, &terms);
            session.grant(terms.credit, &self.limits())?;
            let limit = self.limits().sessions;
            if old.is_none() && sessions.len() >= limit {
                return Err(Error::TooManySessions { limit });
            }
            // From here on the old stream is not the session's any more: what concerns that one is
            // told apart by its number, and what concerns only the stream by that of the stream.
            sessions.insert(key, Arc::clone(&session));
            (session, events, old, goes_on)
        };
        info!(
            session.id = %session.id, subscriber = %session.subscriber, instance = session.instance,
            resumed = goes_on, "attached"
        );
        let link = Link::new(self.clone(), Arc::clone(&session));
        if let Some(old) = &old {
            old.end(Error::SessionReplaced(old.instance.clone()));
        }
        let kept = asked.map(|resume| resume.held.clone()).unwrap_or_default();
        let lost = if goes_on {
            self.resume(&session, kept).await?
        } else {
            if let Some(old) = old {
                self.inner.creations.lost(old.number);
                self.command_all(|| Command::Detach(old.number)).await?;
            }
            self.command_all(|| Command::Attach(Arc::clone(&session)))
                .await?;
            kept
        };
        let resumed = Resumed {
            same: goes_on,
            lost,
        };
        Ok(Opening {
            link,
            events,
            resumed,
        })
    }

    /// What makes a session that is new, or goes on with an old one.
    fn identity(
        &self,
        subscriber: Subscriber,
        asked: Option<&Resume>,
        old: Option<&Session>,
    ) -> Identity {
        let most = self.limits().resume_grace;
        let resumable = asked.map(|resume| Resumable {
            token: match old.and_then(|old| old.resumable.as_ref()) {
                Some(old) => Arc::clone(&old.token),
                None => format!("{:032x}", self.random().random::<u128>()).into(),
            },
            grace: resume.grace.map_or(most, |grace| grace.min(most)),
        });
        match old {
            Some(old) => Identity {
                id: old.id.clone(),
                number: old.number,
                stream: old.stream + 1,
                subscriber,
                resumable,
                since: old.since,
                texts: Arc::clone(&old.texts),
            },
            None => Identity {
                id: format!("{:032x}", self.random().random::<u128>()).into(),
                number: Number(self.next_session()),
                stream: 0,
                subscriber,
                resumable,
                since: self.clock().now(),
                texts: Arc::default(),
            },
        }
    }

    /// Goes on with a session. Returns which of the deliveries that its client has kept it does not
    /// hold any more.
    async fn resume(
        &self,
        session: &Arc<Session>,
        kept: Vec<DeliveryId>,
    ) -> Result<Vec<DeliveryId>, Error> {
        let mut shards = vec![Vec::new(); self.shards()];
        for id in kept {
            shards[self.shard_of_delivery(id)].push(id);
        }
        let mut answers = Vec::with_capacity(shards.len());
        for (shard, held) in shards.into_iter().enumerate() {
            let (lost, answer) = oneshot::channel();
            let session = Arc::clone(session);
            let resume = command::Resume {
                session,
                held,
                lost,
            };
            self.command(shard, Command::Resume(Box::new(resume)))
                .await?;
            answers.push(answer);
        }
        let mut lost = Vec::new();
        for answer in answers {
            lost.append(&mut answer.await.map_err(|_| Error::ShuttingDown)?);
        }
        lost.sort_unstable();
        Ok(lost)
    }

    /// Notes that a session's stream is lost. The session may come back within its grace, if its
    /// client can; after that it is over.
    pub(super) async fn lose(&self, session: Arc<Session>) {
        let Some(resumable) = session.resumable.clone() else {
            return self.detach(session).await;
        };
        if self.is_draining() {
            return self.detach(session).await;
        }
        if !self.is_current(&session) {
            return;
        }
        let (number, stream) = (session.number, session.stream);
        info!(
            session.id = %session.id, subscriber = %session.subscriber, instance = session.instance,
            "lost its stream, and may come back"
        );
        let clock = self.clock();
        let over = clock.sleep_until(clock.now().after(resumable.grace));
        // Shards that are gone hold nothing any more.
        let _ = self.command_all(|| Command::Lose(number, stream)).await;
        session.lose();
        over.await;
        self.detach(session).await;
    }

    /// Whether no later stream has taken a session's place.
    fn is_current(&self, session: &Arc<Session>) -> bool {
        let key = (session.subscriber.clone(), session.instance.clone());
        let sessions = self.sessions();
        sessions
            .get(&key)
            .is_some_and(|other| Arc::ptr_eq(other, session))
    }

    /// Ends a session, unless it goes on elsewhere: what it holds goes to others.
    pub(super) async fn detach(&self, session: Arc<Session>) {
        {
            let mut sessions = self.sessions();
            let key = (session.subscriber.clone(), session.instance.clone());
            // Who has replaced it has taken its place in the shards, too.
            if !sessions
                .get(&key)
                .is_some_and(|other| Arc::ptr_eq(other, &session))
            {
                return;
            }
            sessions.remove(&key);
        }
        info!(
            session.id = %session.id, subscriber = %session.subscriber, instance = session.instance,
            "detached"
        );
        self.inner.creations.lost(session.number);
        // Shards that are gone hold nothing any more.
        let _ = self.command_all(|| Command::Detach(session.number)).await;
    }
}

/// Whether a client may go on with a session: it names it, and has its token.
fn may_resume(old: &Session, asked: Option<&Resume>) -> bool {
    let Some((resumable, asked)) = old.resumable.as_ref().zip(asked) else {
        return false;
    };
    // Of digests, a comparison's time says nothing about the token.
    let digest = |token: &str| Sha256::digest(token.as_bytes());
    asked.session_id == old.id.as_str() && digest(&asked.token) == digest(&resumable.token)
}
