# The R calls behind agreement.json: Rscript agreement.R > agreement.json (from this folder).
# Debian 12: r-base-core, r-cran-psych, r-cran-vcd, r-cran-epir, r-cran-lme4.
suppressPackageStartupMessages({library(psych); library(vcd); library(lme4); library(epiR)})
options(digits = 17, warn = -1)
out <- list()
put <- function(name, values) out[[name]] <<- values

x <- read.csv("readings.csv")
full <- as.matrix(x[, c("r1", "r2", "r3", "r4")])

# psych::ICC(full, lmer = FALSE): six forms with F, df, p and limits.
found <- ICC(full, lmer = FALSE)$results
forms <- c("icc_1_1", "icc_a_1", "icc_c_1", "icc_1_k", "icc_a_k", "icc_c_k")
for (i in 1:6) {
  put(paste0("psych_", forms[i]), c(found[i, "ICC"], found[i, "lower bound"], found[i, "upper bound"],
      found[i, "F"], found[i, "df1"], found[i, "df2"]))
}

# lme4::lmer(value ~ 1 + (1 | target) + (1 | reader), REML = TRUE) on readings with gaps.
long <- data.frame(value = c(x$g1, x$g2, x$g3), target = factor(rep(1:40, 3)),
                   reader = factor(rep(1:3, each = 40)))
long <- long[!is.na(long$value), ]
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-11))
fit <- lmer(value ~ 1 + (1 | target) + (1 | reader), data = long, REML = TRUE, control = tight)
v <- as.data.frame(VarCorr(fit))
put("lme4_components", c(v[v$grp == "target", "vcov"], v[v$grp == "reader", "vcov"],
                         v[v$grp == "Residual", "vcov"], as.numeric(logLik(fit))))

# lmer(value ~ 0 + reader + (1 | target)): readers fixed, targets random; targets read once left out.
often <- long[long$target %in% names(which(table(long$target) >= 2)), ]
mixed <- lmer(value ~ 0 + reader + (1 | target), data = often, REML = TRUE, control = tight)
b <- fixef(mixed); k <- diag(3) - 1 / 3
put("lme4_reader_effects", as.numeric(k %*% b))
put("lme4_reader_errors", sqrt(diag(k %*% as.matrix(vcov(mixed)) %*% t(k))))

# epiR::epi.ccc(r1, r2, ci = "z-transform"): Lin's CCC, limits, C.b, Bland-Altman table.
ccc <- epi.ccc(x$r1, x$r2, ci = "z-transform", conf.level = 0.95)
put("epir_ccc", as.numeric(c(ccc$rho.c$est, ccc$rho.c$lower, ccc$rho.c$upper, ccc$C.b)))
put("t_test_bias", with(t.test(x$r1, x$r2, paired = TRUE), c(estimate, conf.int, p.value)))

# vcd::Kappa(table): unweighted; weights = "Fleiss-Cohen" (quadratic), "Equal-Spacing" (linear).
g <- read.csv("grades.csv")
t2 <- table(factor(g$a, 0:4), factor(g$b, 0:4))
quadratic <- Kappa(t2, weights = "Fleiss-Cohen"); linear <- Kappa(t2, weights = "Equal-Spacing")
put("vcd_kappa", c(quadratic$Unweighted, confint(quadratic)["Unweighted", ]))
put("vcd_kappa_quadratic", c(quadratic$Weighted, confint(quadratic)["Weighted", ]))
put("vcd_kappa_linear", c(linear$Weighted, confint(linear)["Weighted", ]))

# friedman.test (readers are blocks): Kendall's W = chi-square / (k (n - 1)); lm: proportional bias.
fr <- friedman.test(t(as.matrix(g)))
put("kendall_w", as.numeric(fr$statistic) / (3 * (nrow(g) - 1)))
slope <- summary(lm(I(r1 - r2) ~ I((r1 + r2) / 2), data = x))$coefficients
put("proportional_bias", c(slope[2, 1], slope[2, 2], slope[2, 4]))

# Newcombe's and Wilson's intervals: prop.test(correct = FALSE) is Wilson's for one share.
put("wilson", as.numeric(c(prop.test(7, 31, correct = FALSE)$conf.int)))

cells <- sapply(names(out), function(n) paste0("  \"", n, "\": [",
    paste(formatC(as.numeric(out[[n]]), digits = 16, format = "g"), collapse = ", "), "]"))
cat("{\n", paste(cells, collapse = ",\n"), "\n}\n", sep = "")
