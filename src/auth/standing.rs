//! Those who were let in for longer than one call: they are told when they would not be let in any
//! more.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use slab::Slab;
use tokio::sync::oneshot;

use crate::auth::authenticator::Known;
use crate::auth::secret::Digest;
use crate::auth::{Authenticator, Caller, Error, Principal};
use crate::id::{BotId, ChannelId};

/// Why someone would not be let in any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its token is nobody's now.
    Token(Error),
    /// It is known, and may not do this any more.
    Role {
        /// The caller.
        principal: String,
        /// The role that would allow it, or the roles one of which would.
        needs: String,
    },
}

/// What is needed to go on.
pub struct Needs {
    /// Whether a principal may.
    allowed: Box<dyn Fn(&Principal) -> bool + Send + Sync>,
    /// The roles that allow it, for people.
    roles: String,
}

impl Needs {
    /// To be a bot.
    #[must_use]
    pub fn to_be_bot(bot: BotId) -> Self {
        Self {
            roles: format!("`bot:{bot}`"),
            allowed: Box::new(move |principal| principal.may_be_bot(&bot)),
        }
    }

    /// To be a channel's adapter.
    #[must_use]
    pub fn to_use_channel(channel: ChannelId) -> Self {
        Self {
            roles: format!("`channel:{channel}`"),
            allowed: Box::new(move |principal| principal.may_use_channel(&channel)),
        }
    }

    /// To see a conversation on a channel, in which these bots take part.
    #[must_use]
    pub fn to_see(channel: ChannelId, bots: Vec<BotId>) -> Self {
        Self {
            roles: format!(
                "`reader`, `backend`, `admin`, `channel:{channel}`, or that of a bot that takes part"
            ),
            allowed: Box::new(move |principal| principal.sees(&channel, &bots)),
        }
    }

    fn check(&self, known: &Known, shown: Option<&Digest>) -> Result<(), Lost> {
        let principal = known.again(shown).map_err(Lost::Token)?;
        if (self.allowed)(principal) {
            return Ok(());
        }
        Err(Lost::Role {
            principal: principal.name().to_owned(),
            needs: self.roles.clone(),
        })
    }
}

/// Everyone who stands.
#[derive(Default)]
pub(super) struct Standings {
    all: Mutex<Slab<Stands>>,
}

struct Stands {
    shown: Option<Digest>,
    needs: Needs,
    /// Gone when it was told.
    tell: Option<oneshot::Sender<Lost>>,
}

impl Standings {
    /// Puts other principals in force, and tells all who are not let in by them.
    ///
    /// Under the lock: who comes to stand does so before, and is told, or after, and is looked at by
    /// those that are in force then.
    pub(super) fn look_again(&self, known: &Known, put_in_force: impl FnOnce()) {
        let mut all = self.lock();
        put_in_force();
        for (_, stands) in all.iter_mut() {
            let checked = stands.needs.check(known, stands.shown.as_ref());
            if let Err(lost) = checked
                && let Some(tell) = stands.tell.take()
            {
                // One who is about to leave need not be told.
                let _ = tell.send(lost);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Stands>> {
        // Single inserts, removals and looks: what one holder left is whole.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Someone's right to go on. Dropped, nobody is told of its loss any more.
pub struct Standing {
    authenticator: Arc<Authenticator>,
    index: usize,
    lost: oneshot::Receiver<Lost>,
}

impl Standing {
    /// Lets a caller go on for as long as it has what it needs.
    ///
    /// # Errors
    ///
    /// It has not, or has lost it since it was let in.
    pub fn new(
        authenticator: &Arc<Authenticator>,
        caller: &Caller,
        needs: Needs,
    ) -> Result<Self, Lost> {
        let (tell, lost) = oneshot::channel();
        let mut all = authenticator.standings.lock();
        needs.check(&authenticator.known(), caller.shown.as_ref())?;
        let index = all.insert(Stands {
            shown: caller.shown,
            needs,
            tell: Some(tell),
        });
        drop(all);
        Ok(Self {
            authenticator: Arc::clone(authenticator),
            index,
            lost,
        })
    }

    /// Whether it is lost by now. Not to be asked again after that.
    pub fn try_lost(&mut self) -> Option<Lost> {
        self.lost.try_recv().ok()
    }

    /// Ready when it is lost. Not to be asked again after that.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        match Pin::new(&mut self.lost).poll(cx) {
            Poll::Ready(Ok(lost)) => Poll::Ready(lost),
            // Told, or never to be told.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Completes when it is lost. Not to be waited for again after that.
    pub async fn lost(&mut self) -> Lost {
        std::future::poll_fn(|cx| self.poll_lost(cx)).await
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.authenticator.standings.lock().remove(self.index);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::auth::{Credentials, Role};

    fn credentials(name: &str, tokens: &[&str], roles: &[&str]) -> Credentials {
        Credentials {
            name: name.to_owned(),
            token_digests: tokens.iter().map(|token| Digest::of(token)).collect(),
            roles: roles
                .iter()
                .map(|role| role.parse().expect("a role"))
                .collect(),
        }
    }

    fn stand(authenticator: &Arc<Authenticator>, caller: &Caller) -> Result<Standing, Lost> {
        let needs = Needs {
            allowed: Box::new(|principal| principal.roles().contains(&Role::Reader)),
            roles: "`reader`".to_owned(),
        };
        Standing::new(authenticator, caller, needs)
    }

    fn readers() -> (Arc<Authenticator>, Caller) {
        let authenticator = Arc::new(Authenticator::new(&[credentials(
            "ann",
            &["one", "two"],
            &["reader"],
        )]));
        let caller = authenticator
            .authenticate(Some("Bearer one"))
            .expect("it is known");
        (authenticator, caller)
    }

    #[test]
    fn whoever_keeps_its_token_and_role_goes_on_under_any_name() {
        let (authenticator, caller) = readers();
        let mut standing = stand(&authenticator, &caller).expect("it may");
        authenticator.replace(&[
            credentials("bob", &["three"], &["admin"]),
            credentials("anna", &["one"], &["admin", "reader"]),
        ]);
        assert!(standing.lost().now_or_never().is_none());
    }

    #[test]
    fn a_token_that_is_taken_away_is_lost_and_another_of_the_same_principal_is_not() {
        let (authenticator, caller) = readers();
        let mut standing = stand(&authenticator, &caller).expect("it may");
        let other = authenticator.authenticate(Some("Bearer two"));
        let mut other = stand(&authenticator, &other.expect("known")).expect("it may");
        authenticator.replace(&[credentials("ann", &["two"], &["reader"])]);
        let lost = standing.lost().now_or_never();
        assert_eq!(lost, Some(Lost::Token(Error::TokenUnknown)));
        assert!(other.lost().now_or_never().is_none());
    }

    #[test]
    fn a_role_that_is_taken_away_is_lost() {
        let (authenticator, caller) = readers();
        let mut standing = stand(&authenticator, &caller).expect("it may");
        authenticator.replace(&[credentials("ann", &["one"], &["backend"])]);
        let lost = Lost::Role {
            principal: "ann".to_owned(),
            needs: "`reader`".to_owned(),
        };
        assert_eq!(standing.lost().now_or_never(), Some(lost));
    }

    #[test]
    fn what_was_lost_between_the_call_and_the_stand_is_found() {
        let (authenticator, caller) = readers();
        authenticator.replace(&[credentials("bob", &["three"], &["reader"])]);
        let refused = stand(&authenticator, &caller).map(drop);
        assert_eq!(refused, Err(Lost::Token(Error::TokenUnknown)));
    }

    #[test]
    fn a_gateway_that_is_no_longer_open_knows_nobody_without_a_token() {
        let authenticator = Arc::new(Authenticator::new(&[]));
        let needs = || Needs {
            allowed: Box::new(Principal::may_read_all),
            roles: String::new(),
        };
        let anyone = authenticator.authenticate(None).expect("open");
        let someone = authenticator
            .authenticate(Some("Bearer one"))
            .expect("open");
        let mut anyone = Standing::new(&authenticator, &anyone, needs()).expect("open");
        let mut someone = Standing::new(&authenticator, &someone, needs()).expect("open");
        authenticator.replace(&[credentials("ann", &["one"], &["reader"])]);
        assert!(!authenticator.is_open());
        let lost = anyone.lost().now_or_never();
        assert_eq!(lost, Some(Lost::Token(Error::TokenMissing)));
        assert!(someone.lost().now_or_never().is_none());
    }

    #[test]
    fn who_leaves_leaves_nothing_behind() {
        let (authenticator, caller) = readers();
        for _ in 0..3 {
            drop(stand(&authenticator, &caller).expect("it may"));
        }
        assert!(authenticator.standings.lock().is_empty());
        let mut standing = stand(&authenticator, &caller).expect("it may");
        for _ in 0..2 {
            authenticator.replace(&[credentials("bob", &["three"], &["reader"])]);
        }
        assert!(standing.lost().now_or_never().is_some());
        drop(standing);
        assert!(authenticator.standings.lock().is_empty());
    }
}
