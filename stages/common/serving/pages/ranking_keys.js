// Checks records by keys: a, e, r, s press the buttons of those names.
// Ranks by keys: a digit ranks the marked answer, or the first without a rank; a letter marks an answer; Enter saves.
() => {
    const shown = (element) => element.offsetParent !== null;
    const mark = (cards, card) => cards.forEach((one) => one.toggleAttribute("data-marked", one === card));
    const rank = (cards, digit) => {
        const card = cards.find((one) => one.hasAttribute("data-marked"))
            ?? cards.find((one) => !one.querySelector("input[type=radio]:checked"));
        const radio = card?.querySelectorAll("input[type=radio]")[digit - 1];
        if (!radio) return;
        radio.click();
        mark(cards, null);
    };
    const BUTTONS = {a: ".accept", e: ".edit", r: ".reject", s: ".later"};
    // A button that was clicked keeps no focus: Enter is to save, not to press it again.
    document.addEventListener("click", (event) => {
        const button = event.detail && event.target.closest("button");
        if (button && document.querySelector(".ranking, .reviewing")) button.blur();
    });
    document.addEventListener("keydown", (event) => {
        const form = [...document.querySelectorAll(".ranking, .reviewing")].find(shown);
        const writing = event.target.matches("textarea:not([disabled]), input:not([type=radio], [type=checkbox])");
        const presses = event.key === "Enter" && event.target.matches("button");
        if (!form || writing || presses || event.ctrlKey || event.metaKey || event.altKey) return;
        if (form.matches(".reviewing")) {
            const button = form.querySelector(BUTTONS[event.key] ?? ".no-such");
            if (!button) return;
            button.click();
            event.preventDefault();
            return;
        }
        const cards = [...form.querySelectorAll(".ranked")].filter(shown);
        const letter = event.key.length === 1 ? event.key.toUpperCase().charCodeAt(0) - 65 : -1;
        if (/^[1-9]$/.test(event.key)) rank(cards, Number(event.key));
        else if (cards[letter]) mark(cards, cards[letter]);
        else if (event.key === "Enter") form.querySelector(".save")?.click();
        else return;
        event.preventDefault();
    });
}
