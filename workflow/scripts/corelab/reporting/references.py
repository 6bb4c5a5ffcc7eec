"""Publications of the methods that a study used, to be cited with its results."""

from __future__ import annotations

from dataclasses import dataclass

from corelab.measurement.selection import as_list
from corelab.reporting.results import Results


@dataclass(frozen=True)
class Reference:
    """A publication.

    Attributes
    ----------
    text
        Authors, title, journal, year, volume and pages.
    doi
        Digital object identifier.
    use
        What it is cited for.
    tags
        Parts of a study that it belongs to, as from :func:`tags_of`.
    """

    text: str
    doi: str
    use: str
    tags: tuple[str, ...]


REFERENCES = (
    Reference(
        "Mölder F, Jablonski KP, Letcher B, et al. Sustainable data analysis with Snakemake. "
        "F1000Research 2021;10:33",
        "10.12688/f1000research.29032.2",
        "Workflow",
        ("study",),
    ),
    Reference(
        "Avants BB, Epstein CL, Grossman M, Gee JC. Symmetric diffeomorphic image registration "
        "with cross-correlation. Med Image Anal 2008;12:26-41",
        "10.1016/j.media.2007.06.004",
        "Deformable registration",
        ("registration",),
    ),
    Reference(
        "Fonov V, Evans AC, Botteron K, et al. Unbiased average age-appropriate atlases for "
        "pediatric studies. NeuroImage 2011;54:313-327",
        "10.1016/j.neuroimage.2010.07.033",
        "MNI152 template",
        ("registration",),
    ),
    Reference(
        "Mouridsen K, Friston K, Hjort N, et al. Bayesian estimation of cerebral perfusion using a "
        "physiological model of microvasculature. NeuroImage 2006;33:570-579",
        "10.1016/j.neuroimage.2006.06.015",
        "Perfusion, engine bayes",
        ("bayes",),
    ),
    Reference(
        "Wu O, Østergaard L, Weisskoff RM, et al. Tracer arrival timing-insensitive technique for "
        "estimating flow in MR perfusion-weighted imaging using singular value decomposition with "
        "a block-circulant deconvolution matrix. Magn Reson Med 2003;50:164-174",
        "10.1002/mrm.10522",
        "Perfusion, engine osvd",
        ("osvd", "csvd"),
    ),
    Reference(
        "Bland JM, Altman DG. Statistical methods for assessing agreement between two methods of "
        "clinical measurement. Lancet 1986;327:307-310",
        "10.1016/S0140-6736(86)90837-8",
        "Limits of agreement",
        ("agreement",),
    ),
    Reference(
        "McGraw KO, Wong SP. Forming inferences about some intraclass correlation coefficients. "
        "Psychol Methods 1996;1:30-46",
        "10.1037/1082-989X.1.1.30",
        "Intraclass correlation",
        ("agreement", "radiomics"),
    ),
    Reference(
        "Lin LI. A concordance correlation coefficient to evaluate reproducibility. Biometrics "
        "1989;45:255-268",
        "10.2307/2532051",
        "Concordance correlation",
        ("agreement",),
    ),
    Reference(
        "Zou GY. Confidence interval estimation for the Bland-Altman limits of agreement with "
        "multiple observations per individual. Stat Methods Med Res 2013;22:630-642",
        "10.1177/0962280211402548",
        "Limits of agreement with several visits",
        ("agreement",),
    ),
    Reference(
        "Dice LR. Measures of the amount of ecologic association between species. Ecology "
        "1945;26:297-302",
        "10.2307/1932409",
        "Overlap of masks",
        ("overlap",),
    ),
    Reference(
        "Kenward MG, Roger JH. Small sample inference for fixed effects from restricted maximum "
        "likelihood. Biometrics 1997;53:983-997",
        "10.2307/2533558",
        "Mixed model for repeated measures",
        ("mmrm",),
    ),
    Reference(
        "Bretz F, Pinheiro JC, Branson M. Combining multiple comparisons and modeling techniques "
        "in dose-response studies. Biometrics 2005;61:738-748",
        "10.1111/j.1541-0420.2005.00344.x",
        "MCP-Mod",
        ("mcpmod",),
    ),
    Reference(
        "Bretz F, Maurer W, Brannath W, Posch M. A graphical approach to sequentially rejective "
        "multiple test procedures. Stat Med 2009;28:586-604",
        "10.1002/sim.3495",
        "Graphical multiplicity procedure",
        ("graphical",),
    ),
    Reference(
        "Koenker R, Bassett G. Regression quantiles. Econometrica 1978;46:33-50",
        "10.2307/1913643",
        "Quantile regression",
        ("quantile",),
    ),
    Reference(
        "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated "
        "receiver operating characteristic curves: a nonparametric approach. Biometrics "
        "1988;44:837-845",
        "10.2307/2531595",
        "Area under the ROC curve",
        ("diagnostic",),
    ),
    Reference(
        "Imai K, Keele L, Tingley D. A general approach to causal mediation analysis. Psychol "
        "Methods 2010;15:309-334",
        "10.1037/a0020761",
        "Mediation",
        ("mediation",),
    ),
    Reference(
        "Cox DR. Regression models and life-tables. J R Stat Soc B 1972;34:187-220",
        "10.1111/j.2517-6161.1972.tb00899.x",
        "Proportional hazards",
        ("survival",),
    ),
    Reference(
        "Fine JP, Gray RJ. A proportional hazards model for the subdistribution of a competing "
        "risk. J Am Stat Assoc 1999;94:496-509",
        "10.1080/01621459.1999.10474144",
        "Competing risks",
        ("finegray", "cuminc"),
    ),
    Reference(
        "Zwanenburg A, Vallières M, Abdalah MA, et al. The Image Biomarker Standardization "
        "Initiative: standardized quantitative radiomics for high-throughput image-based "
        "phenotyping. Radiology 2020;295:328-338",
        "10.1148/radiol.2020191145",
        "Radiomics features",
        ("radiomics",),
    ),
    Reference(
        "Bair E, Tibshirani R. Semi-supervised methods to predict patient survival from gene "
        "expression data. PLoS Biol 2004;2:e108",
        "10.1371/journal.pbio.0020108",
        "Supervised principal components",
        ("radiomics",),
    ),
)


def tags_of(results: Results) -> set[str]:
    """Parts of a study: types and methods of its analyses, registration, perfusion engines."""
    found = {"study"}
    if results.normalised:
        found.add("registration")
    if any(visit.perfuse for visit in results.visits):
        block = results.settings.perfusion
        found |= {block.core.engine, block.hypoperfusion.engine, block.registry_engine}
    for analysis in results.analyses:
        found |= {analysis.type, str(analysis.as_given().get("method"))}
        found |= set(as_list(analysis.as_given().get("models")))
        if analysis.adjustment == "graphical":
            found.add("graphical")
    return found


def references_of(results: Results) -> list[Reference]:
    """Publications of what a study used, in the order of :data:`REFERENCES`."""
    tags = tags_of(results)
    return [reference for reference in REFERENCES if tags & set(reference.tags)]


def as_text(reference: Reference) -> str:
    """A reference as one line.

    Examples
    --------
    >>> as_text(Reference("Cox DR. Title. J 1972;34:187-220", "10.1111/x", "Cox", ()))
    'Cox DR. Title. J 1972;34:187-220. doi:10.1111/x'
    """
    return f"{reference.text}. doi:{reference.doi}"
