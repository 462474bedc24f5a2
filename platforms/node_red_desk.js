// The recording node of a private copy: takes an event in, sends it through the copied nodes, and writes down what
// became of it. PLAN is put in its place by node_red_entry.py; this file is the body of a function node.
//
// What comes in: calls of the private address, "taps" (what a node sent on), completed messages, errors.
// A run has ended when each message that entered a node was completed or sent on by it.
const PLAN = {};
const desk = (globalThis.desk ??= { life: `${Date.now()}-${Math.random()}`, live: {}, ended: {}, of: {} });
const store = PLAN.store ? [PLAN.store] : [];
const PATIENCE_MS = 10000;

const put = (run) =>
  new Promise((done, failed) =>
    flow.set(`r_${run.kept.id}`, run.kept, ...store, (error) => (error ? failed(error) : done())),
  );

const count = (table, id, n = 1) => (table[id] = (table[id] || 0) + n);

const waiting = (run) =>
  Object.keys(run.entered).filter((id) => run.entered[id] > Math.max(run.completed[id] || 0, run.emitted[id] || 0));

const told = (kept) => (kept.state === "running" && kept.life !== desk.life ? { ...kept, state: "crashed" } : kept);

const end = async (run) => {
  const { failed } = run.kept;
  run.kept.state = failed || (run.res.statusCode >= 400 && run.res.headersSent) ? "error" : "success";
  run.kept.status = run.res.headersSent ? run.res.statusCode : failed ? 500 : 202;
  run.kept.ended = new Date().toISOString();
  delete desk.live[run.kept.id];
  run.messages.forEach((id) => (desk.of[id] = "over"));
  await put(run);
  desk.ended[run.kept.id] = run.kept;
  if (!run.res.headersSent) run.res.status(run.kept.status).json({ run: run.kept.id });
};

// A completed message is heard of sooner than what it sent on: so a run is over only after some turns of the loop.
const look = (run) => {
  const turn = ++run.turn;
  const still = () => run.turn === turn && desk.live[run.kept.id] === run;
  let left = 8;
  const step = () => {
    if (!still()) return;
    if (left-- > 0) return void setTimeout(step, 1);
    const open = waiting(run);
    if (open.length === 0) return void end(run);
    if (open.every((id) => PLAN.silent[id])) setTimeout(() => still() && end(run), PATIENCE_MS);
  };
  step();
};

// Nodes may make messages anew: one that nobody knows is of the only run there is.
const runOf = () => {
  const ids = Object.keys(desk.live);
  const id = desk.of[msg._msgid] || msg._reinstate || (ids.length === 1 ? ids[0] : undefined);
  const run = desk.live[id];
  if (run && !desk.of[msg._msgid]) {
    desk.of[msg._msgid] = id;
    run.messages.push(msg._msgid);
  }
  return run;
};

const item = (value) =>
  value !== null && typeof value === "object" && !Array.isArray(value) && !Buffer.isBuffer(value)
    ? value
    : { payload: Buffer.isBuffer(value) ? value.toString("base64") : (value ?? null) };

const refuse = (res, status, text) => res.set("x-reinstate-refused", "1").status(status).json({ message: text });

const enter = async () => {
  const { req, res } = msg;
  const { id, key, trigger, event } = req.body;
  const named = trigger in PLAN.triggers ? trigger : PLAN.first;
  if (trigger && !(trigger in PLAN.triggers)) return void refuse(res._res, 422, `there is no trigger ${trigger}`);
  if (PLAN.store) {
    try {
      flow.get("r_", PLAN.store);
      return void refuse(res._res, 507, `context store ${PLAN.store} caches; set cache: false in settings.js`);
    } catch {
      // Only a store that writes at once refuses to answer at once.
    }
  }
  const start = PLAN.triggers[named];
  const kept = { id, key, life: desk.life, state: "running", started: new Date().toISOString(), trigger: named, version: PLAN.version };
  const run = { kept: { ...kept, event, outputs: {} }, res: res._res, turn: 0, messages: [msg._msgid] };
  Object.assign(run, { entered: {}, completed: {}, emitted: {} });
  try {
    await put(run);
  } catch (error) {
    return void refuse(res._res, 507, `the event could not be written down: ${error}`);
  }
  desk.live[id] = run;
  desk.of[msg._msgid] = id;
  res._res.set("x-reinstate-run", id);
  let sent = { ...event, _msgid: msg._msgid, _reinstate: id };
  if (start.method) {
    Object.keys(req.headers).forEach((name) => delete req.headers[name]);
    Object.assign(req.headers, event.headers);
    Object.assign(req, { body: event.body, query: event.query || {}, params: event.params || {} });
    req.method = start.method;
    const payload = start.method === "GET" ? req.query : req.body;
    sent = { _msgid: msg._msgid, _reinstate: id, req, res, payload };
  }
  start.targets.forEach((target) => count(run.entered, target));
  node.send(PLAN.ports.map((name) => (name === named ? sent : null)));
  look(run);
};

const list = () => {
  const { query } = msg.req;
  const res = msg.res._res;
  const here = (desk.live[query.run] || {}).kept || desk.ended[query.run];
  if (here) return void res.json([told(here)]);
  flow.keys(...store, (error, names) => {
    if (error) return void refuse(res, 507, String(error));
    const wanted = names.filter((name) => (query.run ? name === `r_${query.run}` : name.startsWith("r_")));
    if (wanted.length === 0) return void res.json([]);
    flow.get(wanted, ...store, (failed, ...found) => {
      if (failed) return void refuse(res, 507, String(failed));
      const kept = found.filter((run) => run && (!query.key || run.key === query.key));
      res.json(kept.map((run) => told(desk.live[run.id]?.kept || run)));
    });
  });
};

if (msg.reinstate === "enter") await enter();
else if (msg.reinstate === "list") list();
else {
  const run = runOf();
  if (!run) return;
  const tap = PLAN.taps[msg.reinstate];
  const error = msg.reinstate === "catch" || tap?.catches ? msg.error : undefined;
  if (tap) {
    count(run.emitted, tap.id);
    tap.targets.forEach((target) => count(run.entered, target));
    if (!tap.catches) (run.kept.outputs[tap.name] ??= []).push(item(RED.util.cloneMessage(msg.payload)));
  } else if (msg.reinstate === "complete") {
    count(run.completed, msg.complete.source.id);
  } else {
    run.kept.failed = true;
  }
  if (error) {
    run.kept.error = String(error.message);
    const known = run.entered[error.source.id] ? [error.source.id] : waiting(run).filter((id) => PLAN.silent[id]);
    known.forEach((id) => count(run.completed, id));
  }
  look(run);
}
