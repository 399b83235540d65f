"""Whether an answer declines to help, in English and Chinese."""

import re

from stages.common.text.thoughts import without_thoughts

OPENING = 240
"""Characters of an answer in which it says no; what follows is an explanation or another offer."""

NOT_KNOWING = re.compile(
    r"\W*(?:(?:i'm |i am )?sorry,? )?(?:but )?i (?:don't|do not) know"
    r"|\W*(?:抱歉|对不起)?[，,]?我不(?:知道|清楚|了解)"
)
ENGLISH = re.compile(
    r"\bi(?:'m| am| do|'d| would|'ll| will| must| have to| need to)?(?: (?:really|simply|just|still|also|therefore))? ?"
    r"(?:can't|cannot|can not|won't|not be able to|not able to|unable to|not going to|not willing to|refuse to|decline"
    r"|don't feel|not comfortable|not allowed to|not permitted to|not programmed to|rather not)"
    r"(?: (?:really|ethically|possibly|in good conscience|be able to|comfortable))? "
    r"(?:help(?! but)|assist|provid|do (?:that|this|so|it)|answer|compl[yi]|creat|give you|giving|tell you|teach|writ"
    r"|shar|participat|engag|fulfil|support|discuss|recommend|condon|encourag|facilitat|generat|offer|advis|suggest"
    r"|explain how|respond|continu|promot|to (?:help|answer|do|provide|assist|engage)|with (?:that|this)"
    r"|your request|the request)"
    r"|\b(?:can't|cannot|unable to|won't|not able to) (?:help|assist) (?:you )?with (?:that|this|your|such)"
    r"|\bi(?:'m| am) (?:really |very |so )?sorry,? but (?:i|that|this|as an)\b.{0,60}?\b"
    r"(?:can't|cannot|not able|unable|won't|not appropriate|against|illegal|unethical)"
)
_NO = r"(?:不能|无法|不会|不可以|没有?办法|拒绝|不便|不应该?|不愿意?|不支持)够?(?:直接|再|继续|去)?"
_HELP = (
    r"(?:[为给向][您你]|帮|协助|提供|回答|满足|参与|生成|给出|编写|撰写|写出|教|做[这那出]|完成[您你这]|执行|告诉|透露"
    r"|讨论|创作|支持|鼓励|回应|遵从|推荐|接受)"
)
CHINESE = re.compile(
    rf"(?:我|恕|本助手|本模型|暂时|目前)[^，。！？,.!?\n]{{0,8}}?{_NO}{_HELP}"
    rf"|(?:抱歉|对不起|很遗憾)[，,]?[^。！？\n]{{0,30}}?{_NO}{_HELP}"
)


def refuses(text: str) -> bool:
    """Whether the answer, behind its thoughts, opens with a refusal to help; not knowing an answer
    is none.
    """
    opening = without_thoughts(text)[:OPENING].casefold().replace("’", "'")
    if NOT_KNOWING.match(opening):
        return False
    return bool(ENGLISH.search(opening) or CHINESE.search(opening))
