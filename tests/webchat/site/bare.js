// Clients of DirectLineJS without a user interface, by name; what they see is also written on the page.

const STATUSES = ['Uninitialized', 'Connecting', 'Online', 'ExpiredToken', 'FailedToConnect', 'Ended'];

window.clients = {};

window.openClient = (name, options) => {
  const connection = new DirectLine.DirectLine(options);
  const client = { connection, statuses: [], activities: [] };
  window.clients[name] = client;
  connection.connectionStatus$.subscribe((status) => {
    client.statuses.push(STATUSES[status]);
    write(name, STATUSES[status]);
  });
  client.subscription = connection.activity$.subscribe({
    next(activity) {
      client.activities.push(activity);
      write(name, `${activity.from.id} ${activity.type} ${activity.text ?? ''}`);
    },
    error(error) {
      write(name, `no more: ${error.message}`);
    },
  });
};

// Resolves to what DirectLineJS says: an id, or `retry`. Fails as it does.
window.post = (name, activity) =>
  new Promise((resolve, reject) => {
    window.clients[name].connection.postActivity(activity).subscribe({
      next: resolve,
      error: (error) => reject(new Error(`${error.status}: ${error.message}`)),
    });
  });

window.closeClient = (name) => {
  window.clients[name].subscription.unsubscribe();
  window.clients[name].connection.end();
};

function write(name, text) {
  const line = document.createElement('div');
  line.textContent = `${name}: ${text}`;
  document.body.append(line);
}
