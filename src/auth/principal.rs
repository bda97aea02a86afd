//! A caller, and the questions about what it may do.

use crate::auth::Role;
use crate::id::{BotId, ChannelId};

/// Someone who calls the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    name: String,
    roles: Vec<Role>,
    open: bool,
}

impl Principal {
    /// A principal with these roles.
    #[must_use]
    pub fn new(name: impl Into<String>, roles: Vec<Role>) -> Self {
        Self {
            name: name.into(),
            roles,
            open: false,
        }
    }

    /// Whoever calls a gateway that has no principals: may do everything.
    #[must_use]
    pub fn open() -> Self {
        Self {
            name: "anyone".to_owned(),
            roles: Vec::new(),
            open: true,
        }
    }

    /// What logs call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is allowed to be; empty when [`is_open`](Self::is_open).
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// Whether it may do everything because the gateway has no principals.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether it may attach as `bot`. Not even an admin may: it would take the bot's deliveries.
    #[must_use]
    pub fn may_be_bot(&self, bot: &BotId) -> bool {
        self.open || self.bots().any(|own| own == bot)
    }

    /// Whether it may send on behalf of `bot`.
    #[must_use]
    pub fn may_speak_for(&self, bot: &BotId) -> bool {
        self.may_be_bot(bot) || self.may_speak_for_all()
    }

    /// Whether it may send on behalf of every bot.
    #[must_use]
    pub fn may_speak_for_all(&self) -> bool {
        self.open || self.has(&Role::Backend) || self.has(&Role::Admin)
    }

    /// Whether it may post for the users of `channel` and attach as its adapter.
    #[must_use]
    pub fn may_use_channel(&self, channel: &ChannelId) -> bool {
        self.open || self.channels().any(|own| own == channel)
    }

    /// Whether it may read every conversation.
    #[must_use]
    pub fn may_read_all(&self) -> bool {
        self.open || self.has(&Role::Backend) || self.has(&Role::Reader) || self.has(&Role::Admin)
    }

    /// Whether it may read the documents that `bot` keeps.
    #[must_use]
    pub fn may_read_state(&self, bot: &BotId) -> bool {
        self.may_be_bot(bot) || self.may_read_all()
    }

    /// Whether it may write the documents that `bot` keeps. A backend may not: it speaks for a bot, and a
    /// bot's memory is its own.
    #[must_use]
    pub fn may_write_state(&self, bot: &BotId) -> bool {
        self.may_be_bot(bot) || self.may_administer()
    }

    /// Whether it may look after the gateway: dead letters, sessions, backups, erasing.
    #[must_use]
    pub fn may_administer(&self) -> bool {
        self.open || self.has(&Role::Admin)
    }

    /// Whether a conversation on `channel` in which `bots` take part exists for it. To a caller
    /// that does not see a conversation, the conversation is unknown.
    #[must_use]
    pub fn sees<'a>(&self, channel: &ChannelId, bots: impl IntoIterator<Item = &'a BotId>) -> bool {
        self.may_read_all()
            || self.channels().any(|own| own == channel)
            || bots
                .into_iter()
                .any(|bot| self.bots().any(|own| own == bot))
    }

    /// The bots it may be, by its roles; none when [`is_open`](Self::is_open).
    pub fn bots(&self) -> impl Iterator<Item = &BotId> {
        self.roles.iter().filter_map(|role| match role {
            Role::Bot(bot) => Some(bot),
            Role::Channel(_) | Role::Backend | Role::Reader | Role::Admin => None,
        })
    }

    /// The channels it may use, by its roles; none when [`is_open`](Self::is_open).
    pub fn channels(&self) -> impl Iterator<Item = &ChannelId> {
        self.roles.iter().filter_map(|role| match role {
            Role::Channel(channel) => Some(channel),
            Role::Bot(_) | Role::Backend | Role::Reader | Role::Admin => None,
        })
    }

    fn has(&self, role: &Role) -> bool {
        self.roles.contains(role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(roles: &[&str]) -> Principal {
        let roles = roles.iter().map(|role| role.parse().expect("a role"));
        Principal::new("test", roles.collect())
    }

    fn bot(id: &str) -> BotId {
        id.into()
    }

    #[test]
    fn only_the_bot_itself_may_be_it() {
        assert!(with(&["bot:echo"]).may_be_bot(&bot("echo")));
        assert!(!with(&["bot:echo"]).may_be_bot(&bot("other")));
        assert!(!with(&["backend", "reader", "admin", "channel:echo"]).may_be_bot(&bot("echo")));
    }

    #[test]
    fn the_bot_backends_and_admins_may_speak_for_a_bot_and_nobody_else() {
        for role in ["bot:echo", "backend", "admin"] {
            assert!(with(&[role]).may_speak_for(&bot("echo")), "{role}");
        }
        for role in ["bot:other", "reader", "channel:echo"] {
            assert!(!with(&[role]).may_speak_for(&bot("echo")), "{role}");
        }
    }

    #[test]
    fn documents_of_a_bot_are_written_by_it_and_by_admins_and_read_by_all_who_read() {
        for (role, reads, writes) in [
            ("bot:echo", true, true),
            ("admin", true, true),
            ("backend", true, false),
            ("reader", true, false),
            ("bot:other", false, false),
            ("channel:echo", false, false),
        ] {
            assert_eq!(with(&[role]).may_read_state(&bot("echo")), reads, "{role}");
            assert_eq!(
                with(&[role]).may_write_state(&bot("echo")),
                writes,
                "{role}"
            );
        }
    }

    #[test]
    fn only_the_channel_itself_may_use_it() {
        let web = ChannelId::from("web");
        assert!(with(&["channel:web"]).may_use_channel(&web));
        for role in ["channel:other", "bot:web", "backend", "reader", "admin"] {
            assert!(!with(&[role]).may_use_channel(&web), "{role}");
        }
    }

    #[test]
    fn backends_readers_and_admins_see_all_bots_and_channels_their_own() {
        let (web, bots) = (ChannelId::from("web"), [bot("echo"), bot("second")]);
        for role in ["backend", "reader", "admin", "channel:web", "bot:second"] {
            assert!(with(&[role]).sees(&web, &bots), "{role}");
        }
        for role in ["channel:echo", "channel:other", "bot:web", "bot:other"] {
            assert!(!with(&[role]).sees(&web, &bots), "{role}");
        }
    }

    #[test]
    fn only_admins_administer() {
        assert!(with(&["reader", "admin"]).may_administer());
        assert!(!with(&["backend", "reader", "bot:admin"]).may_administer());
    }

    #[test]
    fn the_open_principal_may_do_everything_and_one_without_roles_nothing() {
        let ask = |principal: &Principal| {
            [
                principal.may_be_bot(&bot("echo")),
                principal.may_speak_for(&bot("echo")),
                principal.may_use_channel(&"web".into()),
                principal.may_read_all(),
                principal.may_read_state(&bot("echo")),
                principal.may_write_state(&bot("echo")),
                principal.may_administer(),
                principal.sees(&"web".into(), &[bot("echo")]),
                principal.is_open(),
            ]
        };
        assert_eq!(ask(&Principal::open()), [true; 9]);
        assert_eq!(ask(&with(&[])), [false; 9]);
    }
}
