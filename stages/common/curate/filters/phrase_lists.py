"""Phrases of advertisements and of what surrounds the text of a web page, by what they are a sign
of.

English phrases are found as whole words, Chinese ones anywhere. One of them says nothing: what
counts is how many different signs a text shows for its length.
"""

import re
from collections import Counter
from functools import cache
from typing import NamedTuple

from stages.common.text.units import ascii_units

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
WORDS = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+|\d+")


class Reading(NamedTuple):
    """A text with its words (without Chinese) and how often each known phrase stands in it, by
    sign.
    """

    text: str
    lower: str
    words: list[str]
    found: dict[str, Counter[str]]

    def count(self, sign: str) -> int:
        """Return how often phrases of a sign stand in the text."""
        return self.found[sign].total()


def read(text: str, words: list[str] | None = None) -> Reading:
    """Find the known phrases of every sign in `text`, each as often as it stands there. `words` are
    those of a text of ASCII (`units.ascii_units`), where they are at hand.
    """
    lower = text.casefold()
    if words is None:
        words = ascii_units(lower) if lower.isascii() else WORDS.findall(lower)
    english, chinese = _index()
    found: dict[str, Counter[str]] = {sign: Counter() for sign in SIGNS}
    for place in [place for place, word in enumerate(words) if word in english]:
        singles, longer = english[words[place]]
        for phrase, sign in singles:
            found[sign][phrase] += 1
        for phrase, parts, sign in longer.get(words[place + 1], ()) if longer and place + 1 < len(words) else ():
            if words[place : place + len(parts)] == parts:
                found[sign][phrase] += 1
    if HAN.search(lower):
        for place in [place for place, character in enumerate(lower) if character in chinese]:
            for phrase, sign in chinese[lower[place]]:
                if lower.startswith(phrase, place):
                    found[sign][phrase] += 1
    return Reading(text, lower, words, found)


Known = list[tuple[str, str]]
Longer = dict[str, list[tuple[str, list[str], str]]]


@cache
def _index() -> tuple[dict[str, tuple[Known, Longer]], dict[str, Known]]:
    """Return the phrases by their first word, those of more than one by the second too, and Chinese
    ones by their first character: a text is looked up once, whatever their number.
    """
    english: dict[str, tuple[Known, Longer]] = {}
    chinese: dict[str, Known] = {}
    for sign, phrases in SIGNS.items():
        for phrase in sorted(set(phrases)):
            parts = phrase.split()
            if not phrase.isascii():
                chinese.setdefault(phrase[0], []).append((phrase, sign))
                continue
            singles, longer = english.setdefault(parts[0], ([], {}))
            if len(parts) == 1:
                singles.append((phrase, sign))
            else:
                longer.setdefault(parts[1], []).append((phrase, parts, sign))
    return english, chinese


def _phrases(lines: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in lines.replace("\n", ",").split(",") if phrase.strip())


CALLS = _phrases("""
    buy now, click here, click below, click the link, click on the link, order now, order today, order yours
    shop now, call now, call today, call us, sign up, signup, join now, join us, join today, subscribe, register now
    act now, apply now, apply today, visit us, visit our, visit www, contact us, contact me, dm me, dm us, text us
    text me, message me, message us, whatsapp, telegram, follow us, follow me, check out our, check out my, get yours
    get started, grab yours, grab it, claim your, claim now, claim yours, download now, try it now, try it free
    book now, reply stop, write to, send us, send your, just send, forward this, share this, link in bio
    tap the link, tap here, learn more at, buy, book today, start with, sign up free, join free, your first visit
    at checkout, call for, free quote, free estimates, get a free, get your free, order your, pay the, use code
    opt out, enroll now, start earning, start today, start winning, play now, bet now, inbox me, add me, reserve your
    点击, 抢购, 购买, 下单, 加微信, 加我, 加好友, 加群, 进群, 扫码, 扫一扫, 关注, 转发, 领取, 咨询, 详谈, 面谈
    联系qq, 联系微信, 需要的, 有需要, 想要的, 有意者, 小黄车, 下方链接, 点我, 上门, 货到付款, 联系我, 联系客服, 来电
    拨打, 致电, 私聊, 私信, 戳我, 戳链接, 复制, 打开淘宝, 登录网站, 注册即, 注册送, 立即, 报名, 下载app, 回复, 退订
    欢迎选购, 欢迎订购, 欢迎来, 快来, 速来, 速抢, 速联, 访问, 加入我们, 添加, 认准, 详询, 详情咨询, 进店, 预约
""")
URGENCY = _phrases("""
    limited offer, limited time, limited stock, limited spots, limited edition, today only, only today, hurry
    act fast, last chance, last days, final hours, ends soon, ends tonight, ends today, ends midnight
    while stocks last, while supplies last, before it is gone, before it s gone, don t miss, do not miss, dont miss
    miss out, expires, spots left, seats left, left in stock, only a few left, running out, right now, now or never
    urgent, immediately, act today, selling fast, few spots, hours only, weekend only, this week only, won t last
    no time to lose, tonight only
    限时, 限量, 名额, 最后一天, 最后三天, 最后机会, 仅限, 仅剩, 手慢无, 先到先得, 赶快, 赶紧, 抓紧, 马上, 立刻, 速速
    即刻, 今日, 倒计时, 售完, 抢完, 不容错过, 错过, 机不可失, 火爆, 火热, 疯抢, 秒杀, 过期作废, 逾期, 别犹豫
    还等什么, 今晚
""")
LURES = _phrases("""
    free, win, winner, won, winning, prize, bonus, jackpot, reward, gift card, cash, cash prize, guarantee
    guaranteed, risk free, money back, no risk, no experience, no investment, no credit check, no questions asked
    no strings, no work, no skills, no obligation, from home, work from home, earn, earnings, make money
    extra income, passive income, get paid, get rich, profit, profits, double your, triple your, cheap, cheapest
    best price, best prices, lowest price, low price, low prices, discount, discounts, deal, deals, sale, clearance
    save up to, special offer, exclusive offer, offer, promo, promo code, coupon, voucher, free shipping
    free delivery, congratulations, selected, millionaire, wholesale, half price, percent off, off, 100 free
    free trial, free gift, secret, miracle, instantly, overnight, proven, amazing, premium quality, top quality
    original quality, unbeatable, approval, approved, refund, vip, per day, a day, a week, a month
    免费, 中奖, 大奖, 奖金, 红包, 优惠, 特价, 福利, 返现, 返利, 赚钱, 日赚, 月入, 日入, 年入, 收入, 低价, 包邮, 赠送
    送礼, 好礼, 礼品, 礼包, 打折, 折扣, 半价, 清仓, 促销, 甩卖, 跳楼价, 批发, 厂家直销, 正品, 保真, 恭喜, 幸运, 抽奖
    稳赚, 躺赚, 暴富, 致富, 高薪, 日结, 零风险, 无风险, 零门槛, 无门槛, 零投资, 零经验, 在家, 轻松, 保证, 包过, 包赔
    见效, 无效退款, 退款, 秘方, 祖传, 神器, 低至, 原价, 现价, 折起, 送手机, 全网最低, 首单, 内部渠道, 内幕, 稳定
    当天, 秒到, 到账, 加盟, 高额, 提成, 佣金, 最低价, 直降, 满减, 立减, 特惠, 惊喜, 超值, 绝版, 专享, 代理, 试用
    根治, 无副作用, 高价, 诚信, 当场付款, 厂家直供, 不求人, 黑户, 过万, 太神了, 提现, 返水, 首存, 带你, 赚零花钱
    不是梦
""")
GOODS = _phrases("""
    casino, viagra, cialis, pills, replica, rolex, forex, crypto, bitcoin, trading signals, payday, loan, loans, debt
    weight loss, lose weight, slimming, diet, fat, keto, escort, hot singles, singles, dating, betting, poker, slots
    spins, backlinks, seo, traffic, followers, likes, lottery, inheritance, diploma, diplomas, degrees, fake id
    hair loss, anti aging, dissertation, dissertations, escorts, webcams, girls, plumber, locksmith, apy, staking
    flights, car loans, verification badge, enlargement, testosterone, supplement, supplements, sneakers, handbags
    luxury, timeshare, credit card, credit score, webcam, adult, ray ban, insurance, mortgage, refinance, investment
    investors, mlm, affiliate, essay, essays, iphone, ipad, watches, perfume, antivirus, warranty, gold coins
    psychic, nft, airdrop, giveaway, account, paypal
    博彩, 棋牌, 娱乐城, 彩票, 彩金, 下注, 投注, 赌, 六合彩, 时时彩, 百家乐, 老虎机, 开奖, 发票, 办证, 刻章, 文凭
    学历, 贷款, 信用卡, 套现, 无抵押, 征信, 刷单, 刷信誉, 兼职, 减肥, 瘦身, 丰胸, 壮阳, 增高, 美白, 祛斑, 生发, 补肾
    微商, 网赚, 代孕, 代写, 代考, 枪手, 私家侦探, 外挂, 私服, 翻墙, 成人, 约会, 交友, 美女, 裸聊, 高仿, 名表, 名包
    奢侈品, 茅台, 保健品, 理财, 股票, 牛股, 涨停, 外汇, 虚拟币, 比特币, 数字货币, 挖矿, 粉丝, 涨粉, 直播, 主播, 网店
    淘宝, 拼多多, 楼盘, 首付, 学区房, 公寓, 装修, 培训班, 速成, 开锁, 疏通, 搬家, 回收, 二手, 假发, 面膜, 特产, 香烟
    游戏币, 充值, 手游, 点券, 代发论文, 酱香酒, 期刊发表, 加盟, 打字员, 跟单, 回血
""")
NOTICES = _phrases("""
    cookie, cookies, privacy policy, cookie policy, terms of use, terms of service, terms and conditions
    privacy settings, enable javascript, javascript must, javascript is, turn on javascript, javascript enabled
    requires javascript, javascript disabled, your browser, browser is out, all rights reserved
    permission is prohibited, reproduction in whole, newsletter, to subscribers, unsubscribe, your e mail address
    your email address, log in or, sign in or, please log in, please sign in, please register, create an account
    forgot your password, forgot password, remember me, add to cart, skip to content, back to top, continue reading
    related posts, related articles, you may also like, accept all, reject all, manage your preferences
    your preferences, save and close, legitimate interest, our partners, your consent, ad blocker, adblock, adblocker
    ad block, notifications to, turn on notifications, push notifications, download our app, free views
    free articles, session has expired, session expired, reload the page, reload this page, refresh the page
    page not found, leave a reply, leave a comment, cancel reply, click to enlarge, powered by, on your device
    stay on this page, our website, third party advertisers, personalised ads, personalized ads, subscribe to
    already a member, follow us on, skip ad
    隐私政策, 隐私声明, 隐私条款, 服务条款, 用户协议, 使用条款, 免责声明, 版权所有, 版权归, 未经授权, 未经许可
    禁止转载, 请注明出处, 转载请, 如有侵权, 侵权必究, 联系删除, icp备, 备案号, 浏览器版本, 您的浏览器, 请先登录
    登录或注册, 登录后, 忘记密码, 对会员开放, 仅限会员, 开通会员, 请输入验证码, 请输入邮箱, 收藏本站, 设为首页
    返回首页, 返回顶部, 公众号, 二维码, 广告拦截, 合作方, 本网站使用, 本站立场, 用户上传, 电子报, 订阅我们, 收到推送
    打开通知, 接受全部, 偏好设置, 保存并关闭, 下载客户端, 打开app, 免费阅读, 登录已过期, 重新加载, 刷新页面, 刷新后
    页面不存在, 启用javascript, 点击展开, 阅读全文, 责任编辑, 本文来源, 内容来自网络, 来源于网络
""")
MENUS = _phrases("""
    home, about us, about, contact us, contact, sign in, log in, login, log out, logout, register, sign up
    my account, account, cart, view cart, checkout, wishlist, help center, help, faq, site map, sitemap, careers
    press room, press, advertise, newsletter, rss, shipping info, shipping, returns, gift cards, store locator, men
    women, kids, sale, new arrivals, brands, videos, photos, podcasts, events, forum, members, upload, downloads
    support, pricing, language, dark mode, accessibility, partners, affiliates, investors, blog, archive, search
    settings, terms, privacy, imprint, disclaimer, products, services, previous, next, back to top, page
    jump to page, share, share on social media, tweet, like, print this page, print, e mail to a friend, email this
    tags, posted in, posted by, uncategorized, comments, views, related posts, you may also like, read more
    continue reading, sort by, newest, most popular, show, per page, filter results, clear all filters
    add to compare, load more, view all, see all, more, skip to content, toggle navigation, menu, trending now
    last updated, by admin, rating, votes, older posts, newer posts, expand all, collapse all, click to enlarge
    advertisement, sponsored, category, item, leave a reply, report a broken link, cancel reply, facebook, twitter
    instagram, youtube, pinterest, linkedin, news, sports, weather
    首页, 关于我们, 联系我们, 联系方式, 登录, 注册, 退出, 我的账户, 个人中心, 会员中心, 会员专区, 购物车, 收藏夹
    帮助中心, 常见问题, 网站地图, 招贤纳士, 人才招聘, 广告服务, 友情链接, 客户端下载, 软件下载, 手机版, 配送说明
    退换货, 礼品卡, 门店查询, 男装, 女装, 童装, 清仓, 新品上架, 品牌馆, 视频, 图片, 播客, 活动, 论坛, 上传, 售后
    价格, 简体, 繁体, 夜间模式, 无障碍, 加盟合作, 代理商, 投资者关系, 博客, 归档, 站内搜索, 搜索, 设置, 用户协议
    隐私声明, 投诉建议, 意见反馈, 返回顶部, 返回列表, 返回首页, 上一页, 下一页, 尾页, 末页, 上一篇, 下一篇, 没有了
    敬请期待, 跳转到第, 分享到朋友圈, 分享到, 打印本页, 推荐给好友, 标签, 未分类, 阅读, 评论, 相关推荐, 相关阅读
    猜你喜欢, 阅读全文, 展开更多, 按时间排序, 按热度排序, 每页显示, 筛选结果, 清空条件, 加入对比, 查看购物车
    加载更多, 当前位置, 主页, 栏目, 详情, 热门排行, 热门, 责任编辑, 小编, 发布者, 管理员, 点击查看大图, 广告
    赞助内容, 编辑推荐, 举报, 纠错, 字号, 收藏本站, 我要评论, 取消回复, 收藏, 新闻, 体育, 财经, 娱乐, 科技, 汽车
    房产, 军事, 关注, 点赞, 在线客服, 产品中心, 新闻中心
""")
SIGNS = {"calls": CALLS, "urgency": URGENCY, "lures": LURES, "goods": GOODS, "notices": NOTICES, "menus": MENUS}
