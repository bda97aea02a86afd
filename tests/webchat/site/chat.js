// What a site does to have a chat: a token from its own backend, and Web Chat. A page that is loaded
// again goes on with its conversation. What the tests look at is in `window.chat`.

(async () => {
  const session = await conversation();
  const { domain, token, conversationId, started } = session;
  const directLine = WebChat.createDirectLine({
    domain,
    token,
    // With its id a conversation is gone on with; without, the token's conversation is started.
    ...(started ? { conversationId } : {}),
  });
  const store = WebChat.createStore();
  window.chat = { session, store, statuses: [] };
  directLine.connectionStatus$.subscribe((status) => {
    window.chat.statuses.push(status);
    if (status === 2) save({ ...session, started: true });
  });
  WebChat.renderWebChat(
    {
      directLine,
      store,
      locale: 'en-US',
      styleOptions: { botAvatarInitials: 'C', userAvatarInitials: 'A' },
    },
    document.getElementById('chat'),
  );

  // Another tab is given the conversation in its address.
  async function conversation() {
    const given = new URLSearchParams(location.hash.slice(1)).get('conversation');
    const saved = given ?? sessionStorage.getItem('conversation');
    if (saved) return JSON.parse(saved);
    const answer = await fetch('/token', { method: 'POST' });
    return answer.json();
  }

  function save(session) {
    sessionStorage.setItem('conversation', JSON.stringify(session));
  }
})();
