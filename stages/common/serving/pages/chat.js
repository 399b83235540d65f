// What the chat page does without the server: keeps conversations in this browser, gives a message back that got no
// answer, and turns a refusal or a lost server into text of the conversation.
(() => {
    const STORE = "lathe.conversations", HERE = "lathe.conversation", DRAFT = "lathe.draft", MOST = 100, TITLE = 60;
    const AWAY = "the server cannot be reached; send the message again when it is back";
    const state = {id: "", answering: "", failed: "", stopped: false, edited: ""};

    // Conversations: [{id, title, turns}], the newest first.
    const all = () => {
        try {
            const kept = JSON.parse(localStorage.getItem(STORE) ?? "[]");
            return Array.isArray(kept) ? kept : [];
        } catch {
            return [];
        }
    };
    const write = (kept) => {
        for (let count = Math.min(kept.length, MOST); count >= 0; count = Math.floor(count / 2)) {
            try {
                localStorage.setItem(STORE, JSON.stringify(kept.slice(0, count)));
                return;
            } catch {
                if (!count) return; // the browser keeps nothing for this page
            }
        }
    };
    const said = (turn) => typeof turn.content === "string"
        ? turn.content : (turn.content ?? []).map((part) => part.text ?? "").join("\n");
    const turn = (role, text, metadata = null) => ({role, metadata, content: [{type: "text", text}], options: null});
    const isProblem = (one) => one?.metadata?.id === "problem";
    const problem = (text) => turn("assistant", `<span class="problem">⚠ Not answered: ${text}</span>`, {id: "problem"});
    const title = (turns) => {
        const asked = turns.find((one) => one.role === "user");
        const text = asked ? said(asked).trim().replace(/\s+/g, " ") : "";
        return text.length > TITLE ? `${text.slice(0, TITLE)}…` : text;
    };
    // Without the last question when it got no answer: what is asked next takes its place.
    const answered = (turns) => {
        if (!isProblem(turns.at(-1))) return turns;
        return turns.slice(0, turns.findLastIndex((one) => one.role === "user"));
    };
    const open = (id) => {
        state.id = id;
        sessionStorage.setItem(HERE, id);
    };
    const keep = (id, turns) => {
        const others = all().filter((one) => one.id !== id);
        write(turns.length ? [{id, title: title(turns), turns}, ...others] : others);
    };
    const list = () => {
        const kept = all(), known = kept.some((one) => one.id === state.id);
        return {__type__: "update", choices: kept.map((one) => [one.title, one.id]), value: known ? state.id : null};
    };
    const box = (text, isAnswering) => ({
        __type__: "update", value: text, submit_btn: !isAnswering, stop_btn: isAnswering,
    });
    // What stays is not set again: it would undo what a person has begun meanwhile.
    const UNCHANGED = {__type__: "update"}, ready = {...UNCHANGED, submit_btn: true, stop_btn: false};
    const draft = (text) => {
        sessionStorage.setItem(DRAFT, text);
        return text;
    };
    const toEnd = () => document.querySelector("#turns .bubble-wrap")?.scrollTo({top: 1e9});
    const isAnswering = () => state.answering !== "" && state.answering === state.id;

    // Each returns the values of [conversation, message, conversations].
    window.lathe = {
        load() {
            const kept = all();
            const mine = kept.find((one) => one.id === sessionStorage.getItem(HERE)) ?? kept[0];
            let text = sessionStorage.getItem(DRAFT) ?? "", turns = mine?.turns ?? [];
            open(mine?.id ?? crypto.randomUUID());
            if (turns.at(-1)?.role === "user") {
                text ||= said(turns.at(-1));
                turns = [...turns, problem("the page was left before there was an answer")];
            }
            const panel = (isOpen) => ({__type__: "update", open: isOpen});
            return [turns, box(text, false), list(), panel(innerWidth >= 768), panel(innerWidth >= 1100)];
        },
        send(turns, text) {
            return this.begin([...answered(turns), turn("user", text.trim())], "");
        },
        again(turns, text) {
            return this.begin(turns.slice(0, turns.findLastIndex((one) => one.role === "user") + 1), text);
        },
        begin(turns, text) {
            Object.assign(state, {answering: state.id, failed: "", stopped: false, edited: ""});
            keep(state.id, turns);
            return [turns, box(draft(text), true), list()];
        },
        // An answer is over: whole, stopped, or failed.
        end(turns, text, failed) {
            const isElsewhere = state.answering !== state.id;
            state.answering = "";
            if (isElsewhere) return [UNCHANGED, ready, list()];
            if (failed && !state.stopped) turns = [...turns, problem(state.failed || AWAY)];
            else if (turns.at(-1)?.role !== "user" && !isProblem(turns.at(-1))) {
                keep(state.id, turns);
                return [UNCHANGED, ready, list()];
            }
            const asked = turns.findLast((one) => one.role === "user");
            if (turns.at(-1)?.role === "user") turns = turns.slice(0, -1); // stopped before its first word
            return this.over(turns, text.trim() || !asked ? text : said(asked));
        },
        over(turns, text) {
            keep(state.id, turns);
            if (isProblem(turns.at(-1))) [100, 600].forEach((wait) => setTimeout(toEnd, wait)); // the box grows
            return [turns, box(draft(text), false), list()];
        },
        // A call before the answer failed: the page was to bring an edited message or an example.
        refused(turns, text) {
            const wanted = state.edited;
            return [turns, box(draft(text.trim() ? text : wanted), false), list()];
        },
        fresh(turns, text) {
            if (state.answering) keep(state.id, turns);
            state.answering = "";
            open(crypto.randomUUID());
            return [[], box(text, false), list()];
        },
        open(turns, text, id) {
            if (state.answering) keep(state.id, turns);
            state.answering = "";
            open(id);
            return [all().find((one) => one.id === id)?.turns ?? [], box(text, false), list()];
        },
        fill([text, system]) {
            return [draft(text), system];
        },
        remove(turns, text) {
            write(all().filter((one) => one.id !== state.id));
            state.answering = "";
            return this.fresh([], text);
        },
    };

    // Nothing is sent that is empty, or while an answer is under way.
    const holds = (event) => {
        const area = document.querySelector("#message textarea");
        const sends = event.type === "keydown"
            ? event.target === area && event.key === "Enter" && !event.shiftKey && !event.isComposing
            : event.target.closest?.("#message .submit-button");
        const asksAnew = event.type === "click" && event.target.closest?.("#turns :is([title=Edit], [title=Retry])");
        if (!(asksAnew && isAnswering()) && (!sends || (area.value.trim() && !isAnswering()))) return;
        event.preventDefault();
        event.stopImmediatePropagation();
    };
    document.addEventListener("keydown", holds, true);
    document.addEventListener("click", holds, true);
    document.addEventListener("input", (event) => {
        if (event.target.matches?.("#message textarea")) draft(event.target.value);
    });

    // Gradio's client gives a page up whose server it cannot reach, and shows a refusal as a passing note. Here each is
    // an error of the one call: its text is kept for `end`.
    const plain = window.fetch.bind(window);
    const within = (seconds, promise) => Promise.race([
        promise, new Promise((_, refuse) => setTimeout(() => refuse(new Error("no reply")), 1000 * seconds)),
    ]);
    const why = async (response) => {
        const wait = response.headers.get("Retry-After");
        if (response.status === 429) return `too many requests; try again in ${wait ?? "some"} seconds`;
        if (response.status === 413) return "the conversation is too long; begin a new chat";
        if (response.status === 503) return "too many questions wait; try again in a few seconds";
        if (response.status === 401) return "the server wants its token; load the page again";
        return `the server refused it (${response.status})`;
    };
    const json = (status, body) => new Response(JSON.stringify(body), {
        status, headers: {"Content-Type": "application/json"},
    });
    const event = (body) => new TextEncoder().encode(`data: ${JSON.stringify(body)}\n\n`);
    // What was asked and is not answered. The server closes a stream when nothing waits; a message that it gets
    // before the close has come here would wait for ever: then the stream is opened again.
    const joined = new Set();
    // An object as message: Gradio shows no note of it.
    const lost = (text) => {
        state.failed = text;
        joined.clear();
        return [event({msg: "unexpected_error", message: {text}, success: false}), event({msg: "close_stream"})];
    };
    const streaming = (parts) => new Response(new ReadableStream({
        start(control) {
            parts.forEach((part) => control.enqueue(part));
            control.close();
        },
    }), {headers: {"Content-Type": "text/event-stream"}});
    const relayed = (response, signal, reopen) => {
        let reader = response.body.getReader(), text = new TextDecoder(), rest = "", isOver = false;
        const passed = (block) => {
            const told = block.match(/^data:(.*)$/m)?.[1] ?? "{}", {msg, event_id} = JSON.parse(told);
            if (msg === "process_completed") joined.delete(event_id);
            isOver = msg === "close_stream";
            return isOver && joined.size ? [] : [new TextEncoder().encode(`${block}\n\n`)];
        };
        const end = (control) => {
            if (!isOver) lost(AWAY).forEach((part) => control.enqueue(part));
            control.close();
        };
        return new Response(new ReadableStream({
            async pull(control) {
                try {
                    const {done, value} = await reader.read();
                    if (done && isOver && joined.size) {
                        isOver = false;
                        const again = await reopen();
                        if (!again.ok) return end(control);
                        reader = again.body.getReader();
                        text = new TextDecoder();
                        return this.pull(control);
                    }
                    if (done) return end(control);
                    const blocks = (rest + text.decode(value, {stream: true})).split("\n\n");
                    rest = blocks.pop();
                    const parts = blocks.flatMap(passed);
                    parts.forEach((part) => control.enqueue(part));
                    if (!parts.length) return this.pull(control);
                } catch (error) {
                    if (signal?.aborted) control.error(error);
                    else end(control);
                }
            },
            cancel: (reason) => reader.cancel(reason),
        }), {headers: response.headers});
    };
    const stream = async (input, options) => {
        const signal = input.signal ?? options?.signal;
        try {
            const response = await plain(input, options);
            return response.ok ? relayed(response, signal, () => plain(input, options)) : streaming(lost(await why(response)));
        } catch (error) {
            if (signal?.aborted) throw error;
            return streaming(lost(AWAY));
        }
    };
    const called = async (path, input, options) => {
        const isAnswer = path.endsWith("/queue/join"), isStop = /\/(cancel|reset)\/?$/.test(path);
        if (isStop) {
            state.stopped = true;
            joined.clear();
        }
        try {
            const response = await within(isStop ? 5 : isAnswer ? 30 : 600, plain(input, options));
            if (response.ok && isAnswer) joined.add((await response.clone().json()).event_id);
            if (response.ok) return response;
            state.failed = await why(response);
            return json(response.status, isAnswer ? {detail: {}} : {error: state.failed});
        } catch {
            state.failed = AWAY;
            return json(502, isAnswer ? {detail: {}} : {error: AWAY});
        }
    };
    window.fetch = (input, options) => {
        const path = new URL(input.url ?? input, location.href).pathname;
        const asks = (options?.method ?? input.method ?? "GET") === "POST";
        if (!path.includes("/gradio_api/")) return plain(input, options);
        if (path.endsWith("/queue/data")) return stream(input, options);
        if (!asks) return plain(input, options);
        try {
            state.edited = String(JSON.parse(options?.body ?? "{}").event_data?.value ?? "");
        } catch {
            state.edited = "";
        }
        return called(path, input, options);
    };
})();
